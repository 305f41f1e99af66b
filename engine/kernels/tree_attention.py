"""Paged tree attention: every row's past, its own step's rows and the prompts, in one softmax.

Flash-decoding (Dao et al. 2023): the columns of a sequence are cut into *parts*, a program for
each keeps a running softmax over its columns (Milakov and Gimelshein 2018), and a second kernel
joins the parts of a row. Part 0 holds the step's own rows and the adapter's prompts, part i the
i-th piece of the past. A piece has a fixed number of tokens, never a share of the machine, so that
the order of a row's sum does not depend on what else runs.
"""

# Kernels are written in the subset of Python that Triton compiles; constexpr arguments are
# upper case, pointers end in _ptr.
import triton
import triton.language as tl

# Columns of the table of tiles; `engine.attention.paged` fills it.
TILE_FIELDS = 10
# Lower than any score, yet finite: a part without a visible column must not become NaN.
LOWEST = tl.constexpr(-1.0e30)


@triton.jit
def _in_scope(row_positions, column_positions, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """`Scope` by positions, bool `[rows, columns]`; 0 stands for no limit."""
    rows, columns = row_positions[:, None], column_positions[None, :]
    seen = (rows >= 0) & (columns >= 0)
    if WINDOW > 0:
        seen = seen & (rows - columns < WINDOW)
    if CHUNK > 0:
        seen = seen & (rows // CHUNK == columns // CHUNK)
    return seen


@triton.jit
def _fold(
    total, top, acc, query, seen, slots, real, key_ptr, value_ptr, stride_key, stride_value,
    scaling, SOFTCAP: tl.constexpr, KEY_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr, VALUE_PAD: tl.constexpr,
):  # fmt: skip
    """Take the columns at `slots` into the running softmax of all rows.

    total, top: float32 `[rows]`, sum of weights and largest score. acc: float32 `[rows, value]`.
    """
    dims = tl.arange(0, KEY_PAD)
    key = tl.load(
        key_ptr + slots[:, None] * stride_key + dims[None, :],
        mask=real[:, None] & (dims[None, :] < KEY_DIM),
        other=0.0,
    )
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scaling
    if SOFTCAP > 0:  # tanh, which Triton has none of
        scores = SOFTCAP * (2 * tl.sigmoid(2 * scores / SOFTCAP) - 1)
    scores = tl.where(seen & real[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp(scores - new_top[:, None])
    shrink = tl.exp(top - new_top)
    dims = tl.arange(0, VALUE_PAD)
    value = tl.load(
        value_ptr + slots[:, None] * stride_value + dims[None, :],
        mask=real[:, None] & (dims[None, :] < VALUE_DIM),
        other=0.0,
    )
    added = tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return total * shrink + tl.sum(weights, 1), new_top, acc * shrink[:, None] + added


# Triton would compile again where an integer is 1 or a multiple of 16.
@triton.jit(do_not_specialize=["num_words"])
def attend_parts(
    query_ptr, key_ptr, value_ptr, acc_ptr, total_ptr, top_ptr,
    tiles_ptr, table_ptr, positions_ptr, words_ptr, offsets_ptr,
    stride_query_row, stride_query_head, stride_key_slot, stride_key_head,
    stride_value_slot, stride_value_head,
    num_words, heads, scaling, part_size,
    SOFTCAP: tl.constexpr, SHARE: tl.constexpr, KEY_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    KEY_PAD: tl.constexpr, VALUE_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, CHUNK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
):  # fmt: skip
    """One part of the columns for one tile of rows and one KV head: grid (tiles, kv heads, parts).

    query `[rows, heads, KEY_DIM]`; keys and values of one layer `[slots, kv heads, dim]`. acc,
    total and top: float32 `[partial sums, heads, ...]`, that of part p at `offsets[row] + p`.
    The heads that share a KV head are folded into the rows of a tile, `ROWS` of them in all.
    COLUMNS divides 64, the bits of a word.
    """
    tile_ptr = tiles_ptr + tl.program_id(0) * TILE_WIDTH
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    # Counts fit 32 bits; slots, times a stride, may not.
    first_folded = tl.load(tile_ptr).to(tl.int32)
    start = tl.load(tile_ptr + 1).to(tl.int32)
    num_rows = tl.load(tile_ptr + 2).to(tl.int32)
    num_causal = tl.load(tile_ptr + 3).to(tl.int32)
    num_past = tl.load(tile_ptr + 4).to(tl.int32)
    first_block = tl.load(tile_ptr + 5).to(tl.int32)
    scratch_slot = tl.load(tile_ptr + 6)
    first_prompt = tl.load(tile_ptr + 7)
    num_prompts = tl.load(tile_ptr + 8).to(tl.int32)
    first_mask = tl.load(tile_ptr + 9).to(tl.int32)
    past_start = (part - 1) * part_size
    if past_start >= num_past:
        return

    folded = first_folded + tl.arange(0, ROWS)
    rows = folded // SHARE
    valid = rows < num_rows
    head = kv_head * SHARE + folded % SHARE
    dims = tl.arange(0, KEY_PAD)
    query = tl.load(
        query_ptr
        + (start + rows)[:, None] * stride_query_row
        + head[:, None] * stride_query_head
        + dims[None, :],
        mask=valid[:, None] & (dims[None, :] < KEY_DIM),
        other=0.0,
    )
    positions = tl.load(positions_ptr + start + rows, mask=valid, other=0).to(tl.int32)
    key_ptr += kv_head * stride_key_head
    value_ptr += kv_head * stride_value_head
    total = tl.zeros([ROWS], tl.float32)
    top = tl.zeros([ROWS], tl.float32) + LOWEST
    acc = tl.zeros([ROWS, VALUE_PAD], tl.float32)
    span = tl.arange(0, COLUMNS)

    if part > 0:
        end = tl.minimum(past_start + part_size, num_past)
        # What lies left of every row's window or chunk is not even read. The edge is rounded down
        # to whole column steps, so that the steps of a part are the same for every row.
        lowest = tl.min(tl.where(valid, positions, 1 << 30), 0)
        if WINDOW > 0:
            edge = tl.maximum(lowest - WINDOW + 1, 0)
            past_start = tl.maximum(past_start, edge // COLUMNS * COLUMNS)
        if CHUNK > 0:
            edge = lowest // CHUNK * CHUNK
            past_start = tl.maximum(past_start, edge // COLUMNS * COLUMNS)
        for column in range(past_start, end, COLUMNS):
            columns = column + span
            real = columns < end
            block = tl.load(table_ptr + first_block + columns // BLOCK_SIZE, mask=real, other=0)
            slots = block * BLOCK_SIZE + columns % BLOCK_SIZE
            seen = _in_scope(positions, columns, WINDOW, CHUNK)
            total, top, acc = _fold(
                total, top, acc, query, seen, slots, real, key_ptr, value_ptr,
                stride_key_slot, stride_value_slot, scaling,
                SOFTCAP, KEY_DIM, VALUE_DIM, KEY_PAD, VALUE_PAD,
            )  # fmt: skip
    else:
        # Causal rows: a tile sees none behind its own last row.
        last = tl.minimum((first_folded + ROWS - 1) // SHARE + 1, num_causal)
        for column in range(0, last, COLUMNS):
            columns = column + span
            real = columns < last
            ahead = tl.load(positions_ptr + start + columns, mask=real, other=0).to(tl.int32)
            seen = (columns[None, :] <= rows[:, None]) & _in_scope(positions, ahead, WINDOW, CHUNK)
            total, top, acc = _fold(
                total, top, acc, query, seen, scratch_slot + columns, real, key_ptr, value_ptr,
                stride_key_slot, stride_value_slot, scaling,
                SOFTCAP, KEY_DIM, VALUE_DIM, KEY_PAD, VALUE_PAD,
            )  # fmt: skip
        # Tree rows, by their visibility words; those of causal rows are 0.
        for column in range(0, num_rows - num_causal, COLUMNS):
            columns = num_causal + column + span
            real = columns < num_rows
            ahead = tl.load(positions_ptr + start + columns, mask=real, other=0).to(tl.int32)
            word = tl.load(
                words_ptr + (start + rows) * num_words + column // 64, mask=valid, other=0
            )
            bits = (word[:, None] >> (column % 64 + span).to(tl.int64)[None, :]) & 1
            seen = (bits == 1) & _in_scope(positions, ahead, WINDOW, CHUNK)
            total, top, acc = _fold(
                total, top, acc, query, seen, scratch_slot + columns, real, key_ptr, value_ptr,
                stride_key_slot, stride_value_slot, scaling,
                SOFTCAP, KEY_DIM, VALUE_DIM, KEY_PAD, VALUE_PAD,
            )  # fmt: skip
        for column in range(0, num_prompts, COLUMNS):
            columns = column + span
            real = columns < num_prompts
            seen = (rows >= first_mask)[:, None] & real[None, :]
            total, top, acc = _fold(
                total, top, acc, query, seen, first_prompt + columns, real, key_ptr, value_ptr,
                stride_key_slot, stride_value_slot, scaling,
                SOFTCAP, KEY_DIM, VALUE_DIM, KEY_PAD, VALUE_PAD,
            )  # fmt: skip

    partial = (tl.load(offsets_ptr + start + rows, mask=valid, other=0) + part) * heads + head
    tl.store(total_ptr + partial, total, mask=valid)
    tl.store(top_ptr + partial, top, mask=valid)
    dims = tl.arange(0, VALUE_PAD)
    tl.store(
        acc_ptr + partial[:, None] * VALUE_DIM + dims[None, :],
        acc,
        mask=valid[:, None] & (dims[None, :] < VALUE_DIM),
    )


@triton.jit(do_not_specialize=["num_rows"])
def join_parts(
    acc_ptr, total_ptr, top_ptr, out_ptr, offsets_ptr, sinks_ptr, num_rows, heads,
    VALUE_DIM: tl.constexpr, VALUE_PAD: tl.constexpr, OUTPUTS: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """The parts of OUTPUTS rows and heads into the output `[rows, heads, VALUE_DIM]`.

    sinks: float32 `[heads]`, scores of a column without a value (gpt-oss).
    """
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    row, head = output // heads, output % heads
    valid = row < num_rows
    first = tl.load(offsets_ptr + row, mask=valid, other=0)
    parts = tl.load(offsets_ptr + row + 1, mask=valid, other=0) - first
    dims = tl.arange(0, VALUE_PAD)
    inside = dims[None, :] < VALUE_DIM
    top = tl.zeros([OUTPUTS], tl.float32) + LOWEST
    total = tl.zeros([OUTPUTS], tl.float32)
    if SINKS:
        top = tl.load(sinks_ptr + head, mask=valid, other=0.0)
        total += 1.0
    acc = tl.zeros([OUTPUTS, VALUE_PAD], tl.float32)
    for part in range(0, tl.max(parts, 0)):
        real = part < parts
        partial = (first + part) * heads + head
        part_top = tl.load(top_ptr + partial, mask=real, other=LOWEST)
        new_top = tl.maximum(top, part_top)
        shrink, weight = tl.exp(top - new_top), tl.exp(part_top - new_top)
        value = tl.load(
            acc_ptr + partial[:, None] * VALUE_DIM + dims[None, :],
            mask=real[:, None] & inside,
            other=0.0,
        )
        acc = acc * shrink[:, None] + value * weight[:, None]
        total = total * shrink + tl.load(total_ptr + partial, mask=real, other=0.0) * weight
        top = new_top
    out = acc / tl.where(valid, total, 1.0)[:, None]
    tl.store(
        out_ptr + output[:, None] * VALUE_DIM + dims[None, :],
        out.to(out_ptr.dtype.element_ty),
        mask=valid[:, None] & inside,
    )
