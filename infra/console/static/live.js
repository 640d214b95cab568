// The one live part: the flow is fetched again while the box is ticked and the page is looked at. Without it, reload.
"use strict";
const box = document.getElementById("live");
const part = document.querySelector("[data-live]");
if (box && part) {
  const look = async () => {
    if (box.checked && !document.hidden) {
      try {
        const answer = await fetch(part.dataset.live, { credentials: "same-origin" });
        if (answer.ok) part.innerHTML = await answer.text();
        part.classList.toggle("stale", !answer.ok);
      } catch {
        part.classList.add("stale");
      }
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
}
