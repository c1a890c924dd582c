// Bring the page up to date every ten seconds, unless somebody is filling in a form.
"use strict";
setInterval(() => {
  if (!document.hidden && !document.activeElement.closest("form")) location.reload();
}, 10_000);
