"""Tensor parallelism: one scheduler, N ranks with a shard of the model each.

Terms. A *rank* is a process that holds its shards of the weights and its KV heads. Rank 0 is the
*leader*: the engine's process, which schedules, samples and verifies. The others are *workers*:
they repeat what the leader does to the model, in the same order, so that the collectives inside of
it (torch.distributed, by transformers' own plan) meet. What to repeat comes over a socket pair, a
packed array of integers at a time (`wire`); tensors, where there are any, over a broadcast.

A socket pair also tells of death: a worker whose leader is gone ends, and a leader that loses a
worker ends, whatever collective either of them waits in. Nothing listens beyond the loopback
interface, and nothing is pickled.
"""
