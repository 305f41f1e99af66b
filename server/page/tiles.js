// The server's figures, asked for every two seconds while the page is looked at.

const EVERY_MS = 2000;

class Tiles {
  constructor() {
    this.before = null;
    setInterval(() => this.ask(), EVERY_MS);
    document.addEventListener("visibilitychange", () => this.ask());
  }

  async ask() {
    if (document.hidden || this.refused) return;
    try {
      this.show(await (await ask("/v1/stats", field("admin_key").value)).json());
      this.note("");
    } catch (error) {
      // Refused once, refused again: until another key is typed in.
      this.refused = error.status === 401 || error.status === 403;
      this.note(error.message);
    }
  }

  retry() {
    this.refused = false;
    this.ask();
  }

  note(words) {
    field("tiles-note").textContent = words;
    field("tiles-note").hidden = words === "";
    field("tiles").hidden = words !== "";
  }

  /** Rates are of what came since the last time; where nothing came, the last figure stays. */
  show(now) {
    const seconds = (now.now - this.before?.now) || 0;
    const since = (name) => now[name] - (this.before?.[name] ?? now[name]);
    this.set("running", now.num_running);
    this.set("waiting", now.num_waiting);
    this.set("kv", `${(now.kv_cache_usage * 100).toFixed(0)} %`);
    if (seconds > 0) this.set("speed", (since("generation_tokens") / seconds).toFixed(0));
    if (since("first_tokens") > 0) {
      const mean = since("first_token_seconds") / since("first_tokens");
      this.set("ttft", `${(mean * 1000).toFixed(0)} ms`);
    }
    if (since("decoding_forwards") > 0) {
      this.set("acceptance", (since("decoded_tokens") / since("decoding_forwards")).toFixed(2));
    }
    this.before = now;
  }

  set(name, value) {
    const tile = document.querySelector(`[data-tile="${name}"]`);
    if (tile.textContent !== String(value)) tile.textContent = value;
  }
}
