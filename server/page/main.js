// Putting it together.

const theme = localStorage.getItem("bita.theme");
if (theme) document.documentElement.dataset.theme = theme;
field("theme").addEventListener("click", switchTheme);
fillLegend(field("legend"));
const chat = new Chat();
const tiles = new Tiles();
const models = () => fillModels(chat.showError);
keepKey("api_key", KEYS.api, models);
keepKey("admin_key", KEYS.admin, () => tiles.retry());
models();
tiles.ask();
field("message").focus();
