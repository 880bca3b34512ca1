(function () {
  "use strict";
  var root = document.documentElement, tip = document.getElementById("tip");
  var NS = "http://www.w3.org/2000/svg";
  function stored(value) {
    try {
      if (value) localStorage.setItem("ssl-lightning-theme", value);
      return localStorage.getItem("ssl-lightning-theme");
    } catch (error) { return null; }
  }
  var theme = stored();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    stored(root.dataset.theme);
  });
  function text(value, percent) {
    if (percent) return (100 * value).toFixed(1) + " %";
    var size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }
  function show(event, nodes) {
    tip.replaceChildren.apply(tip, nodes);
    tip.hidden = false;
    var box = tip.getBoundingClientRect(), x = event.clientX + 14, y = event.clientY + 14;
    if (x + box.width > innerWidth - 8) x = Math.max(8, event.clientX - box.width - 14);
    if (y + box.height > innerHeight - 8) y = Math.max(8, event.clientY - box.height - 14);
    tip.style.left = x + "px";
    tip.style.top = y + "px";
  }
  function hide() { tip.hidden = true; }
  function line(words, color) {
    var row = document.createElement("div");
    if (color) {
      var dot = document.createElement("i");
      dot.style.background = color;
      row.appendChild(dot);
    }
    row.appendChild(document.createTextNode(words));
    return row;
  }
  document.querySelectorAll("svg[data-lines]").forEach(function (svg) {
    var data = JSON.parse(svg.dataset.lines), cursor = document.createElementNS(NS, "path");
    cursor.setAttribute("class", "cursor");
    svg.appendChild(cursor);
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      var at = (event.clientX - box.left) / box.width * view.width;
      if (at < data.x[2] - 8 || at > data.x[3] + 8) { cursor.setAttribute("d", ""); hide(); return; }
      var x = data.x[0] + (at - data.x[2]) / (data.x[3] - data.x[2]) * (data.x[1] - data.x[0]);
      var best = null;
      data.s.forEach(function (one) {
        one.x.forEach(function (value) { if (best === null || Math.abs(value - x) < Math.abs(best - x)) best = value; });
      });
      if (best === null) return;
      var rows = [line((data.l || "x") + " " + text(best))], reach = (data.x[1] - data.x[0]) / 25;
      data.s.forEach(function (one) {
        var near = -1;
        one.x.forEach(function (value, i) {
          if (near < 0 || Math.abs(value - best) < Math.abs(one.x[near] - best)) near = i;
        });
        if (near >= 0 && Math.abs(one.x[near] - best) <= reach) {
          rows.push(line((data.s.length > 1 ? one.n + "  " : "") + text(one.y[near], data.p), one.c));
        }
      });
      var place = data.x[2] + (best - data.x[0]) / (data.x[1] - data.x[0]) * (data.x[3] - data.x[2]);
      cursor.setAttribute("d", "M" + place + " " + data.y[3] + "V" + data.y[2]);
      show(event, rows);
    });
    svg.addEventListener("pointerleave", function () { cursor.setAttribute("d", ""); hide(); });
  });
  document.querySelectorAll(".tabs").forEach(function (tabs) {
    var heads = tabs.querySelectorAll("[role=tab]"), panes = tabs.querySelectorAll(":scope > [role=tabpanel]");
    heads.forEach(function (head, i) {
      head.addEventListener("click", function () {
        heads.forEach(function (other, j) { other.setAttribute("aria-selected", String(i === j)); panes[j].hidden = i !== j; });
      });
    });
  });
  document.querySelectorAll(".steps").forEach(function (steps) {
    var range = steps.querySelector("input"), states = steps.querySelectorAll(":scope > .state");
    range.addEventListener("input", function () {
      states.forEach(function (state, i) { state.hidden = i !== Number(range.value); });
      steps.querySelector("output").textContent = states[Number(range.value)].dataset.name;
    });
  });
  document.querySelectorAll(".copy").forEach(function (button) {
    button.addEventListener("click", function () {
      var words = button.parentNode.querySelector("pre").textContent;
      function told() { button.textContent = "copied"; setTimeout(function () { button.textContent = "copy"; }, 1500); }
      if (navigator.clipboard) navigator.clipboard.writeText(words).then(told, function () {});
    });
  });
  var sheet = document.getElementById("thumbnails"), items = document.getElementById("items");
  var known = items ? JSON.parse(items.dataset.items) : null;
  function thumbnail(place) {
    if (!sheet || !known || !known.side) return null;
    var one = document.createElement("canvas"), wide = known.across, side = known.side;
    one.width = side; one.height = side;
    one.getContext("2d").drawImage(sheet, place % wide * side, Math.floor(place / wide) * side, side, side, 0, 0, side, side);
    one.style.width = "112px"; one.style.height = "112px"; one.style.imageRendering = "pixelated";
    return one;
  }
  function told(place) {
    var rows = [], picture = thumbnail(place), label = known.labels ? known.labels[place] : -1;
    if (picture) rows.push(picture);
    if (label >= 0) rows.push(line(known.classes[label] || "class " + label, known.colors[label]));
    if (known.found && known.found[place] >= 0 && known.found[place] !== label) rows.push(line("kNN: " + (known.classes[known.found[place]] || known.found[place])));
    rows.push(line("item " + known.indices[place]));
    return rows;
  }
  document.querySelectorAll(".map").forEach(function (map) {
    map.addEventListener("pointerover", function (event) {
      var place = event.target.dataset ? event.target.dataset.i : undefined;
      if (place === undefined || !known) return;
      show(event, told(Number(place)));
    });
    map.addEventListener("pointerout", hide);
  });
  document.querySelectorAll(".legend").forEach(function (legend) {
    legend.querySelectorAll("button").forEach(function (button) {
      button.addEventListener("click", function () {
        var on = button.getAttribute("aria-pressed") !== "true", around = legend.parentNode;
        button.setAttribute("aria-pressed", String(on));
        if (button.dataset.wrong !== undefined) {
          around.querySelectorAll(".map").forEach(function (map) { map.classList.toggle("wrong", on); });
          return;
        }
        around.querySelectorAll('.map g[data-g="' + Number(button.dataset.g) + '"]').forEach(function (group) {
          group.classList.toggle("off", !on);
        });
      });
    });
  });
}());
