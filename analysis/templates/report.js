"use strict";
(function () {
  var root = document.documentElement;
  root.classList.add("js");

  // Theme: the system's until the reader says otherwise; a page from a file may have no storage.
  function remembered() { try { return localStorage.getItem("hpc-harness-theme"); } catch (error) { return null; } }
  function remember(theme) { try { localStorage.setItem("hpc-harness-theme", theme); } catch (error) { return; } }
  function dark() {
    var said = root.getAttribute("data-theme");
    return said ? said === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  }
  var before = remembered();
  if (before === "dark" || before === "light") { root.setAttribute("data-theme", before); }

  document.addEventListener("DOMContentLoaded", function () {
    var toggle = document.getElementById("theme");
    function label() { toggle.textContent = dark() ? "Light" : "Dark"; }
    toggle.addEventListener("click", function () {
      var theme = dark() ? "light" : "dark";
      root.setAttribute("data-theme", theme);
      remember(theme);
      label();
    });
    label();

    // The tiles of the summary show only the cases of one verdict; a second click shows all again.
    var tiles = Array.prototype.slice.call(document.querySelectorAll("[data-filter]"));
    var cases = Array.prototype.slice.call(document.querySelectorAll("[data-verdict]"));
    var groups = Array.prototype.slice.call(document.querySelectorAll(".group"));
    tiles.forEach(function (tile) {
      tile.addEventListener("click", function () {
        var on = tile.getAttribute("aria-pressed") !== "true";
        tiles.forEach(function (other) { other.setAttribute("aria-pressed", String(on && other === tile)); });
        cases.forEach(function (row) {
          row.hidden = on && row.getAttribute("data-verdict") !== tile.getAttribute("data-filter");
        });
        groups.forEach(function (group) { group.hidden = !group.querySelector("[data-verdict]:not([hidden])"); });
      });
    });

    // A link to a case opens it.
    function open() {
      var target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
      if (target && target.tagName === "DETAILS") { target.open = true; }
    }
    window.addEventListener("hashchange", open);
    open();
  });
})();
