// The conversation: send, stop, regenerate.

class Chat {
  constructor() {
    this.log = field("log");
    this.turns = []; // { message, element }
    this.running = null;
    field("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(field("message").value);
    });
    field("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      field("ask").requestSubmit();
    });
    field("stop").addEventListener("click", () => this.running?.abort());
    field("regenerate").addEventListener("click", () => this.regenerate());
    field("clear").addEventListener("click", () => this.clear());
    field("trace").addEventListener("change", ({ target }) => {
      for (const { answer } of this.turns) answer?.colour(target.checked);
    });
  }

  showError(message) {
    field("error").textContent = message;
  }

  announce(words) {
    field("status").textContent = words;
  }

  send(text) {
    if (this.running || !text.trim()) return;
    const element = make("article", "user");
    element.append(make("h3", "", "You"), make("div", "said", text));
    this.add({ message: { role: "user", content: text }, element });
    field("message").value = "";
    this.generate();
  }

  regenerate() {
    if (this.running) return;
    if (this.turns.at(-1)?.answer) this.turns.pop().element.remove();
    if (this.turns.length) this.generate();
  }

  clear() {
    this.running?.abort();
    for (const { element } of this.turns) element.remove();
    this.turns = [];
    this.showError("");
    field("empty").hidden = false;
    this.busy(null);
    field("message").focus();
  }

  add(turn) {
    field("empty").hidden = true;
    this.turns.push(turn);
    this.log.append(turn.element);
    turn.element.scrollIntoView({ block: "nearest" });
  }

  /** Answer the last message. What was received before a stop or an error stays. */
  async generate() {
    const messages = this.turns.map(({ message }) => message);
    const running = new AbortController();
    this.showError("");
    let answer = null;
    try {
      const body = JSON.stringify(requestBody(messages));
      this.busy(running);
      this.announce("Answering");
      answer = new Answer(field("tooltip"), this.announce, (text) => {
        field("predicted").value = text;
        field("predicted").focus();
      });
      const turn = { message: { role: "assistant", content: "" }, element: answer.element, answer };
      this.add(turn);
      const response = await ask("/v1/chat/completions", field("api_key").value, {
        method: "POST", body, headers: { "content-type": "application/json" },
        signal: running.signal,
      });
      for await (const chunk of events(response)) {
        answer.take(chunk);
        answer.colour(field("trace").checked);
        turn.message.content = answer.content;
      }
      this.announce(answer.conclude(answer.finish ?? "the server"));
    } catch (error) {
      if (error.name === "AbortError") this.announce(answer.conclude("you"));
      else this.fail(error, answer);
    } finally {
      if (this.running === running) this.busy(null);
    }
  }

  fail(error, answer) {
    this.showError(error.message);
    if (error.status === 401) field("api_key").focus();
    if (!answer) return;
    if (answer.content) answer.conclude("an error");
    else {
      this.turns = this.turns.filter((turn) => turn.answer !== answer);
      answer.element.remove();
    }
  }

  busy(running) {
    this.running = running;
    field("send").disabled = running !== null;
    field("stop").disabled = running === null;
    field("regenerate").disabled = running !== null || !this.turns.length;
  }
}
