// Sections marked data-live are taken anew from the server while the page is looked at. One that somebody
// is in, or has written in, is left alone: what is being typed must not go.

const EVERY = 5000;

function inUse(section) {
  return (
    section.contains(document.activeElement) ||
    section.querySelector("details[open]") !== null ||
    [...section.querySelectorAll("input")].some((input) => input.value !== input.defaultValue) ||
    [...section.querySelectorAll("select")].some((select) => select.selectedIndex > 0)
  );
}

async function refresh() {
  if (document.visibilityState !== "visible") return;
  // What a form was answered with has no address of its own.
  const answer = await fetch(location.pathname + location.search, { redirect: "manual" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const section of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(section.id);
    if (other !== null && !inUse(section) && section.innerHTML !== other.innerHTML) {
      section.replaceChildren(...document.adoptNode(other).childNodes);
    }
  }
}

async function always() {
  try {
    await refresh();
  } catch {
    // The next time may be better.
  }
  setTimeout(always, EVERY);
}

setTimeout(always, EVERY);
