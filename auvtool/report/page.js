"use strict";
(() => {
  // Sorting: a button in each column head; numbers by value, what is no number last.
  const key = (row, column) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    const numbers = [!Number.isNaN(x), !Number.isNaN(y)];
    if (numbers[0] && numbers[1] && x !== y) return x - y;
    return numbers[0] !== numbers[1] ? (numbers[0] ? -1 : 1) : a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const isNumber = head.classList.contains("n");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (isNumber ? compare(a, b) : a.localeCompare(b, undefined, { numeric: true })));
        if (falling) rows.reverse();
        if (isNumber) rows.sort(([a], [b]) => (a === "-") - (b === "-"));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // What a filter would drop: AUVs above F^-1(q), the smallest AUV that at least a share q does not exceed.
  const tools = document.querySelector("form.tools");
  if (!tools) return;
  const rows = [...document.querySelectorAll("table.ranking tbody tr")];
  const found = rows.map((row) => row.textContent.toLowerCase());
  const auvs = rows.filter((row) => "auv" in row.dataset).map((row) => Number(row.dataset.auv)).sort((a, b) => a - b);
  const { find, quantile, only, shown } = tools.elements;
  const update = () => {
    const q = Number(quantile.value) / 100;
    const place = Math.max(1, Math.ceil(q * auvs.length - 1e-9));
    const limit = auvs.length ? auvs[place - 1] : Infinity;
    const wanted = find.value.trim().toLowerCase();
    const [gone, all] = [[0, 0, 0], [0, 0, 0]];
    let dropped = 0;
    rows.forEach((row, index) => {
      const drops = "auv" in row.dataset && Number(row.dataset.auv) > limit;
      row.classList.toggle("drops", drops);
      row.hidden = !found[index].includes(wanted) || (only.checked && !drops);
      dropped += drops;
      if ("third" in row.dataset) {
        all[row.dataset.third] += 1;
        gone[row.dataset.third] += drops;
      }
    });
    shown.value = q.toFixed(2);
    const thirds = all.some(Boolean)
      ? `; of the smallest third ${gone[0]} of ${all[0]}, middle ${gone[1]} of ${all[1]}, largest ${gone[2]} of ${all[2]}`
      : "";
    tools.querySelector(".said").textContent = auvs.length
      ? `${dropped} of ${rows.length} cases dropped: AUV above ${limit.toFixed(3)}${thirds}`
      : "no case has an AUV";
  };
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", update);
  tools.hidden = false;
  update();
})();
