// Draw the figures that a page stores as JSON, in the colours of the page, and again when the reader switches them.
(() => {
  const draw = (figure) => {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const style = getComputedStyle(document.body);
    const text = style.getPropertyValue("--color-foreground-primary").trim();
    const line = style.getPropertyValue("--color-background-border").trim();
    const axes = Object.fromEntries(
      Object.keys({ xaxis: 0, yaxis: 0, ...layout })
        .filter((name) => /^[xy]axis\d*$/.test(name))
        .map((name) => [name, { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...layout[name] }]),
    );
    Plotly.react(
      figure.querySelector(".drawing"),
      data,
      { ...layout, ...axes, autosize: true, width: undefined, paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { ...layout.font, color: text } },
      { responsive: true, displaylogo: false },
    );
  };

  const figures = [...document.querySelectorAll(".plotly-figure")];
  const drawAll = () => figures.forEach(draw);
  for (const figure of figures) figure.append(Object.assign(document.createElement("div"), { className: "drawing" }));
  drawAll();
  new MutationObserver(drawAll).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
