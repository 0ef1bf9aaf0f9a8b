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

    // The tiles of the summary and the field for words show only some cases; again, or empty, all.
    var tiles = Array.prototype.slice.call(document.querySelectorAll("[data-filter]"));
    var cases = Array.prototype.slice.call(document.querySelectorAll("[data-verdict]"));
    var groups = Array.prototype.slice.call(document.querySelectorAll(".group"));
    // On a phone a list of cases that all pass hides everything below it.
    if (cases.length > 12 && window.matchMedia("(max-width: 52rem)").matches) {
      groups.forEach(function (group) {
        if (!group.querySelector("[data-verdict]:not([data-verdict='pass'])")) { group.open = false; }
      });
    }
    var folded = groups.map(function (group) { return !group.open; });
    var field = document.getElementById("find");
    var found = document.getElementById("found");
    function show() {
      var pressed = tiles.filter(function (tile) { return tile.getAttribute("aria-pressed") === "true"; })[0];
      var verdict = pressed ? pressed.getAttribute("data-filter") : "";
      var words = field ? field.value.trim().toLowerCase() : "";
      var number = 0;
      cases.forEach(function (row) {
        var said = words ? row.querySelector("summary").textContent.toLowerCase() : "";
        row.hidden = (verdict && row.getAttribute("data-verdict") !== verdict) || said.indexOf(words) < 0;
        number += row.hidden ? 0 : 1;
      });
      groups.forEach(function (group, place) {
        group.hidden = Boolean(verdict || words) && !group.querySelector("[data-verdict]:not([hidden])");
        group.open = verdict || words ? true : !folded[place];
      });
      if (found) { found.textContent = verdict || words ? number + " of " + cases.length : ""; }
    }
    tiles.forEach(function (tile) {
      tile.addEventListener("click", function () {
        var on = tile.getAttribute("aria-pressed") !== "true";
        tiles.forEach(function (other) { other.setAttribute("aria-pressed", String(on && other === tile)); });
        show();
      });
    });
    if (field) { field.addEventListener("input", show); }

    // A link to a case opens it.
    function open() {
      var target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
      if (!target || target.tagName !== "DETAILS") { return; }
      target.hidden = false;
      for (var at = target; at; at = at.parentElement) {
        if (at.tagName === "DETAILS") { at.open = true; at.hidden = false; }
      }
      target.scrollIntoView();
    }
    window.addEventListener("hashchange", open);
    open();
  });
})();
