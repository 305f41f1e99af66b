// One answer: its text, its tokens, and what it took.

class Answer {
  constructor(tooltip, announce, predict) {
    this.element = make("article", "assistant");
    this.text = make("div", "said");
    this.tokens = new TokenView(tooltip, announce);
    this.tally = make("p", "tally");
    this.figures = make("dl", "figures");
    this.content = "";
    this.reuse = make("button", "", "Use as prediction");
    this.reuse.type = "button";
    this.reuse.addEventListener("click", () => predict(this.content));
    this.element.append(make("h3", "", "Answer"), this.text, this.tokens.element, this.tally,
      this.figures);
    this.started = performance.now();
    this.colour(field("trace").checked);
  }

  /** Take one chunk of the stream. */
  take({ choices, usage, metrics }) {
    for (const { delta, trace, finish_reason: finish, stop_reason: stop } of choices) {
      if (delta.content || trace?.length) {
        this.last = performance.now();
        this.first ??= this.last;
      }
      this.content += delta.content ?? "";
      this.tokens.add(trace ?? []);
      if (finish) this.finish = finish;
      if (finish === "stop" && typeof stop !== "string") this.tokens.end(this.content);
    }
    this.text.textContent = this.content;
    if (usage) this.usage = usage;
    if (metrics) this.receipt = metrics.speculative_decoding;
  }

  /** Show the tokens instead of the text, where they were traced. */
  colour(on) {
    const traced = on && this.tokens.entries.length > 0;
    this.text.hidden = traced;
    this.tokens.element.hidden = this.tally.hidden = !traced;
  }

  /** Show what it took; how: "stop", "length", or "stopped" where the user ended it. */
  conclude(how) {
    const count = this.usage?.completion_tokens ?? this.tokens.entries.length;
    const seconds = (this.last - this.first) / 1000;
    const rows = [
      ["Tokens", count || null],
      ["Tokens/s", count > 1 && seconds > 0 ? ((count - 1) / seconds).toFixed(1) : null],
      ["First token", this.first && `${Math.round(this.first - this.started)} ms`],
      ["Tokens a forward", this.receipt?.num_spec_steps
        ? this.receipt.mean_acceptance_length.toFixed(2) : null],
      ["Ended by", how],
    ];
    this.figures.replaceChildren(...rows.map(([name, value]) => {
      const row = make("div", "");
      row.append(make("dt", "", name), make("dd", "", String(value ?? "–")));
      return row;
    }), this.reuse);
    this.tally.textContent = this.tokens.tally();
    return `Answer complete: ${rows.map(([name, value]) => `${name} ${value ?? "unknown"}`).join(", ")}`;
  }
}
