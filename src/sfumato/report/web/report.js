// Start the parts that this run has, one at a time and in the page's order, so that the page answers while it is built.

const PARTS = [
  ["frontier", startFrontier],
  ["stages", startPriorities],
  ["wall", startWall],
  ["prompts", startPrompts],
  ["pairs", startRepeats],
  ["curves", startCurves],
  ["samples", startSamples],
].filter(([id]) => byId(id));

function startNext() {
  const part = PARTS.shift();
  if (!part) { document.querySelector("main").removeAttribute("aria-busy"); return; }
  part[1]();
  requestIdleCallback(startNext, { timeout: 200 });
}

startPictures();
startTables();
startLook();
if (byId("telling") && !byId("stages")) drawTelling(null);
requestIdleCallback(startNext, { timeout: 200 });
