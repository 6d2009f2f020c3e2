// Brings the page to life once it is whole; a section that fails says so and leaves its tables alone.

function start(selector, run) {
  for (const script of document.querySelectorAll(selector)) {
    const section = document.getElementById(script.dataset.for);
    try {
      run(section, JSON.parse(script.textContent));
    } catch (error) {
      section.append(h('p', { class: 'warning' }, `The charts of this section could not be drawn: ${error.message}`));
      console.error(error);
    }
  }
}

addEventListener('DOMContentLoaded', () => {
  start('.experiment-data', (section, data) => {
    const drawn = describeCells(data);
    startTable(section, data);
    startRates(section, data, drawn);
    startCurves(section, data, drawn);
  });
  start('.surface-data', startSurface);
  startTheme();
});

let pageWidth = document.documentElement.clientWidth, waiting = 0;
addEventListener('resize', () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    if (document.documentElement.clientWidth === pageWidth) return;
    pageWidth = document.documentElement.clientWidth;
    redraws.forEach((draw) => draw());
  });
});
