// What is asked for besides the messages. Keys stay in the tab's own storage.

const field = (id) => document.getElementById(id);

function number(id) {
  const { value } = field(id);
  return value === "" ? undefined : Number(value);
}

/** The body of a chat request; throws where a number is out of its range. */
function requestBody(messages) {
  if (!field("settings").reportValidity()) throw new Error("A setting is out of its range.");
  const system = field("system").value;
  const predicted = field("predicted").value;
  const on = (id) => field(id).checked;
  return {
    model: field("model").value,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    temperature: number("temperature"),
    top_p: number("top_p"),
    max_tokens: number("max_tokens"),
    seed: number("seed"),
    speculation: {
      enabled: on("enabled"), bita: on("bita"), ngram: on("ngram"), prediction: on("prediction"),
      trace: on("trace"),
    },
    prediction: predicted ? { type: "content", content: predicted } : undefined,
    stream: true,
    stream_options: { include_usage: true },
  };
}

function keepKey(id, name, changed) {
  const input = field(id);
  input.value = sessionStorage.getItem(name) ?? "";
  input.addEventListener("change", () => {
    sessionStorage.setItem(name, input.value);
    changed();
  });
}

/** Names requests may use; the first is the base model's. */
async function fillModels(showError) {
  try {
    const { data } = await (await ask("/v1/models", field("api_key").value)).json();
    const chosen = field("model").value;
    field("model").replaceChildren(...data.map(({ id, parent }) => {
      const option = new Option(parent ? `${id} (adapter)` : `${id} (model)`, id);
      option.selected = id === chosen;
      return option;
    }));
    showError("");
  } catch (error) {
    showError(error.message);
  }
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("bita.theme", root.dataset.theme);
}
