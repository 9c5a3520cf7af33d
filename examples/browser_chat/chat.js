// The page: it joins under a name, shows who is here and what is said, and comes back.

import { connect } from "./pomelo.js";

const at = (id) => document.getElementById(id);
const MAX_LINES = 500;

let peer = null;
let name = "";

function show(state, words) {
  document.body.dataset.state = state;
  at("state").textContent = words;
  at("enter").hidden = name !== "";
  at("say").hidden = name === "" || state !== "up";
}

function item(...parts) {
  const made = document.createElement("li");
  made.append(...parts); // text stays text
  return made;
}

function said({ name: who, text }) {
  const bold = document.createElement("b");
  bold.textContent = who;
  at("log").append(item(bold, text));
  while (at("log").children.length > MAX_LINES) at("log").firstChild.remove();
  at("log").lastChild.scrollIntoView();
}

async function join(wanted) {
  at("problem").textContent = "";
  try {
    await peer.request("chat.join", { name: wanted });
    name = wanted;
    show("up", `you are ${name}`);
    at("text").focus();
  } catch (error) {
    name = "";
    at("problem").textContent = error.message;
    show(document.body.dataset.state, at("state").textContent);
  }
}

async function stay() {
  for (;;) {
    try {
      const { port } = await (await fetch("where.json")).json();
      peer = await connect(`ws://${location.hostname}:${port}/`);
      peer.on("onLine", said);
      peer.on("onPeople", ({ names }) => at("people").replaceChildren(...names.map((n) => item(n))));
      show("up", "connected");
      if (name) await join(name);
      show("down", await peer.closed);
    } catch (error) {
      show("down", error.message);
    }
    at("people").replaceChildren();
    await new Promise((done) => setTimeout(done, 500 + 1000 * Math.random()));
  }
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  if (document.body.dataset.state === "up") join(at("name").value.trim());
});

at("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value;
  at("text").value = "";
  peer.request("chat.say", text).catch((error) => (at("state").textContent = error.message));
});

stay();
