// An item by keyboard: digits and arrows answer, U takes the last answer back. Without this file all buttons still work.
"use strict";
const form = document.getElementById("answer");
const kind = form.dataset.kind;
const choices = [...form.querySelectorAll("button[name=answer]")];
const ranks = [...form.querySelectorAll("select")];
const keys = document.getElementById("keys");
const images = [...form.querySelectorAll("img")];
let sent = false;
let ready = false;

// Nobody answers what they have not seen: wait for the pictures, then fetch those of the next item.
Promise.allSettled(images.map((image) => image.decode())).then(() => {
  ready = true;
  form.removeAttribute("aria-busy");
  for (const source of form.dataset.ahead.split(" ").filter(Boolean)) new Image().src = source;
});
form.setAttribute("aria-busy", "true");

form.addEventListener("submit", (event) => {
  if (sent || !ready) event.preventDefault();
  else sent = true;
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

keys.checked = localStorage.getItem("sfumato-keys") !== "off";
keys.addEventListener("change", () => localStorage.setItem("sfumato-keys", keys.checked ? "on" : "off"));

// Ranks: pictures are picked from the best on, by digit or by pressing them.
const picked = () => ranks.filter((select) => select.value).length;
const unpick = () => {
  for (const select of ranks) if (Number(select.value) === picked()) return void (select.value = "");
};
const pick = (index) => {
  if (ranks[index] && !ranks[index].value) ranks[index].value = String(picked() + 1);
};
ranks.forEach((select, index) => {
  select.closest(".option").querySelector(".pictures").addEventListener("click", () => pick(index));
});

const move = (step) => {
  const now = choices.indexOf(document.activeElement);
  const first = step > 0 ? 0 : choices.length - 1;
  choices[now < 0 ? first : (now + step + choices.length) % choices.length].focus();
};
const choose = (value) => choices.find((button) => button.value === value)?.click();

const two = kind === "pair" || kind === "variety";
const actions = {
  u: () => document.querySelector("#undo button")?.click(),
  ArrowLeft: () => (two ? choose("1") : move(-1)),
  ArrowRight: () => (two ? choose("2") : move(1)),
};
if (two) actions.ArrowDown = actions["0"] = () => choose("tie");
if (kind === "rank") {
  actions.Backspace = unpick;
  actions.Enter = () => form.requestSubmit();
  delete actions.ArrowLeft;
  delete actions.ArrowRight;
}

document.addEventListener("keydown", (event) => {
  if (!keys.checked || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target.closest("select, summary, a, input:not([type=checkbox])")) return;
  if (event.key === "Enter" && target.closest("button, input")) return;
  const digit = /^[1-9]$/.test(event.key);
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!digit && !action) return;
  event.preventDefault();
  if (!digit) action();
  else if (kind === "rank") pick(Number(event.key) - 1);
  else choose(event.key);
});
