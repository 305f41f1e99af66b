// What is asked of the server, and its streams. Nothing is sent anywhere else.

const KEYS = { api: "bita.api_key", admin: "bita.admin_key" };

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The response of a path; throws an Error with the server's own words where it refuses. */
async function ask(path, key, options = {}) {
  const response = await fetch(path, {
    ...options, headers: { ...headers(key), ...options.headers },
  });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = new Error(body?.error?.message ?? `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

/** The parsed data of server-sent events, up to [DONE]. Throws what an event reports as an error. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The stream ended before the answer did.");
    buffer += value;
    const frames = buffer.split("\n\n");
    buffer = frames.pop();
    for (const frame of frames) {
      const lines = frame.split("\n").filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue; // a comment that keeps the connection open
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}
