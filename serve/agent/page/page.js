// The page of the agent: asks /v1/responses and shows its events as they come. Text goes in by textContent alone.

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") ?? "";
let model = null;
let running = null; // the AbortController of the question under way
let rating = null;
let responseId = null;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

async function api(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const method = body ? "POST" : "GET";
  const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  if (reply.ok) return reply;
  if (reply.status === 401) $("token-row").hidden = false;
  const said = await reply.json().catch(() => null);
  throw new Error(said?.error?.message ?? `The server answered ${reply.status}. Try again later.`);
}

function show(error) {
  $("error").textContent = error instanceof TypeError ? "The server cannot be reached. Is it still running?" : error.message;
  $("error").hidden = false;
  $("status").textContent = "";
}

async function* eventsOf(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

// ---- what is shown of each event ------------------------------------------------------------------------------

const placeOf = (id) => `document-${encodeURIComponent(id)}`;

function startSearch(item) {
  const entry = make("li", "search");
  entry.dataset.item = item.id;
  entry.append(make("p", "query", `Search: ${item.queries.join("; ")}`));
  entry.append(make("p", "place", "searching …"));
  $("steps").append(entry);
  $("status").textContent = `Searching for “${item.queries.join("; ")}” …`;
}

function finishSearch(item) {
  const entry = stepOf(item.id);
  if (!entry) return;
  entry.querySelector(".place").remove();
  if (!item.results?.length) {
    entry.append(make("p", "place", item.status === "completed" ? "nothing was found" : "no search was left for this"));
    return;
  }
  const list = make("ul", "documents");
  for (const [index, found] of item.results.entries()) {
    const document_ = make("li");
    document_.tabIndex = -1;
    if (!document.getElementById(placeOf(found.file_id))) document_.id = placeOf(found.file_id);
    const rank = found.attributes?.rank ?? index + 1;
    document_.append(make("span", "title", found.filename), " ");
    document_.append(make("span", "place", `rank ${rank}, score ${found.score.toFixed(3)}, ${found.file_id}`));
    document_.append(make("p", "passage", found.text));
    list.append(document_);
  }
  entry.append(list);
  $("status").textContent = `Read ${item.results.length} passages, thinking …`;
}

function cite(annotation) {
  const cited = annotation.status === "cited";
  $("sources").hidden = false;
  $("sources-title").textContent = cited ? "Cited: the answer stands in" : "Read: the answer stands in none of these";
  const button = make("button", annotation.status, annotation.title);
  button.type = "button";
  button.setAttribute("aria-label", `${cited ? "Cited" : "Read"}: ${annotation.title}. Go to its passage`);
  const passage = document.getElementById(placeOf(annotation.file_id));
  if (cited) passage?.classList.add("cited");
  button.addEventListener("click", () => {
    document.querySelectorAll(".flash").forEach((one) => one.classList.remove("flash"));
    passage?.classList.add("flash");
    passage?.scrollIntoView({ block: "center" });
    passage?.focus({ preventScroll: true });
  });
  const entry = make("li");
  entry.append(button);
  $("citations").append(entry);
}

function end(response) {
  responseId = response.id;
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  const tokens = response.usage ? `, ${response.usage.output_tokens} tokens` : "";
  $("status").textContent = response.status === "failed" ? "" : `Done in ${seconds} s${tokens}.`;
  if (response.status === "failed") show(new Error(response.error?.message ?? "The answer failed."));
  if (response.status === "incomplete") {
    $("result").hidden = false;
    $("answer").textContent = response.incomplete_details?.detail ?? "The agent gave no answer.";
  }
}

function startThought(item) {
  const entry = make("li", "thought");
  entry.dataset.item = item.id;
  $("steps").append(entry);
}

const STARTED = { file_search_call: startSearch, reasoning: startThought };
const FINISHED = {
  file_search_call: finishSearch,
  message: (item) => item.status === "incomplete" && $("answer").replaceChildren(), // it was begun, and is none
};
const stepOf = (id) => [...$("steps").children].find((one) => one.dataset.item === id);

const SHOWN = {
  "response.reasoning_text.delta": (event) => stepOf(event.item_id)?.append(event.delta),
  "response.output_item.added": (event) => STARTED[event.item.type]?.(event.item),
  "response.output_item.done": (event) => FINISHED[event.item.type]?.(event.item),
  "response.output_text.delta": (event) => {
    $("result").hidden = false;
    $("answer").append(event.delta);
  },
  "response.output_text.annotation.added": (event) => cite(event.annotation),
  "response.completed": (event) => end(event.response),
  "response.incomplete": (event) => end(event.response),
  "response.failed": (event) => end(event.response),
};

// ---- what people do -------------------------------------------------------------------------------------------

let begun = 0;

function clear() {
  for (const id of ["steps", "citations", "answer", "status", "rated", "error"]) $(id).replaceChildren();
  for (const id of ["error", "result", "sources"]) $(id).hidden = true;
  $("work").hidden = false;
  $("comment").value = "";
  rating = responseId = null;
  rate(null);
}

async function ask(event) {
  event.preventDefault();
  if (running || !$("question").value.trim()) return;
  if ($("token").value) sessionStorage.setItem("token", (token = $("token").value));
  clear();
  running = new AbortController();
  begun = performance.now();
  $("send").disabled = true;
  $("stop").disabled = false;
  $("status").textContent = "Thinking …";
  let last = "";
  try {
    model ??= await nameOfModel();
    const body = { model, input: $("question").value, stream: true };
    if ($("sampled").checked) body.temperature = 1;
    for await (const one of eventsOf(await api("v1/responses", body, running.signal))) {
      SHOWN[one.type]?.(one);
      last = one.type;
    }
    if (!["response.completed", "response.incomplete", "response.failed"].includes(last))
      throw new Error("The connection ended before the answer was whole. Ask again.");
    if (!$("result").hidden) $("result").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (error.name === "AbortError") $("status").textContent = "Stopped.";
    else show(error);
  } finally {
    running = null;
    $("send").disabled = false;
    $("stop").disabled = true;
  }
}

function rate(given) {
  rating = given;
  for (const button of document.querySelectorAll("[data-rating]"))
    button.setAttribute("aria-pressed", String(button.dataset.rating === rating));
  $("rate-send").disabled = rating === null;
}

async function sendRating(event) {
  event.preventDefault();
  try {
    await api("v1/feedback", { response_id: responseId, rating, comment: $("comment").value });
    $("rated").textContent = "Kept. Thank you.";
    $("rate-send").disabled = true;
  } catch (error) {
    $("rated").textContent = error.message;
  }
}

async function nameOfModel() {
  const reply = await (await api("v1/models")).json();
  $("model").textContent = reply.data[0].about || reply.data[0].id;
  return reply.data[0].id;
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

const kept = localStorage.getItem("theme");
if (kept) document.documentElement.dataset.theme = kept;
$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", () => running?.abort());
$("rate").addEventListener("submit", sendRating);
$("theme").addEventListener("click", switchTheme);
for (const button of document.querySelectorAll("[data-rating]"))
  button.addEventListener("click", () => rate(button.dataset.rating));
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
nameOfModel().then((name) => (model = name)).catch(show);
