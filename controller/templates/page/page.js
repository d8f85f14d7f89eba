// Keeps a page as it is on the server: an event says that something has changed, then the page is asked
// for again and what differs is put into the document, so that focus, selection and what was opened stay.
"use strict";
(() => {
  const live = document.getElementById("live");
  // Not document.URL: it may carry user and password, with which nothing can be fetched.
  const here = () => location.origin + location.pathname + location.search;
  let events = null;
  let loading = false;
  let again = false;

  // Told once, not at each change: it is read aloud.
  const say = (text, lost) => {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("lost", lost);
  };

  const key = (node) => node.nodeType === Node.ELEMENT_NODE ? node.nodeName + "#" + node.id : node.nodeName;

  function attributes(old, fresh) {
    for (const { name } of [...old.attributes]) {
      // Who opened it wants to read on.
      if (!fresh.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.nodeName === "DETAILS" && name === "open") continue;
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function children(old, fresh) {
    const named = new Map();
    for (const child of old.children) if (child.id) named.set(key(child), child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const known = next.id ? named.get(key(next)) : null;
      if (known && known !== at) {
        // A row that was further down: it moves up.
        old.insertBefore(known, at);
        at = known;
      }
      if (at && key(at) === key(next)) {
        const following = at.nextSibling;
        patch(at, next);
        at = following;
      } else {
        old.insertBefore(document.importNode(next, true), at);
      }
    }
    while (at) {
      const following = at.nextSibling;
      at.remove();
      at = following;
    }
  }

  function patch(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    // A choice that somebody is making is his.
    if (old.nodeName === "FORM") return;
    attributes(old, fresh);
    children(old, fresh);
  }

  async function load() {
    if (loading) {
      again = true;
      return;
    }
    loading = true;
    try {
      const answer = await fetch(here(), { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = fresh.getElementById("main");
      if (answer.status === 401 || answer.status === 403 || !main) {
        say("Not live: you have to log in again. Load the page again.", true);
      } else {
        const focus = document.activeElement && document.activeElement.id;
        patch(document.getElementById("main"), main);
        document.title = fresh.title;
        if (focus && document.activeElement === document.body) document.getElementById(focus)?.focus();
        say("Live", false);
      }
    } catch {
      say("Not live: the connection is lost. Trying again.", true);
    } finally {
      loading = false;
    }
    if (again) {
      again = false;
      load();
    }
  }

  function open() {
    if (events) return;
    events = new EventSource(location.origin + "/events");
    events.addEventListener("changed", load);
    events.addEventListener("error", () => {
      say("Not live: the connection is lost. Trying again.", true);
      if (events && events.readyState === EventSource.CLOSED) {
        close();
        setTimeout(() => document.hidden || open(), 5000);
      }
    });
  }

  function close() {
    if (events) events.close();
    events = null;
  }

  // A tab that nobody sees takes no connection, of which a browser has few for each server.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", () => document.hidden || open());
  if (!document.hidden) open();
})();
