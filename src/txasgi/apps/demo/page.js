
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  // 1001: going away, 1006: no closing handshake, 1012: the server restarts (RFC 6455 section 7.4).
  const SERVER_LEFT = [1001, 1006, 1012];
  const LOG_LINES = 200;

  function show(id, state, text) {
    $(id).dataset.state = state;
    $(id).textContent = text;
  }

  function duration(seconds) {
    const s = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
    return `${Math.floor(s / 86400)} d ${two(Math.floor(s / 3600) % 24)} h`;
  }

  // Clock: one EventSource. A stream has an end, and the browser comes back for the next one by itself;
  // only if that takes longer than the pause between two ticks is it worth a word.

  let source = null, lateTimer = 0, lastTick = 0;

  function startClock() {
    source = new EventSource("events");
    show("clock-state", "warn", "connecting");
    $("clock-toggle").textContent = "Stop";
    source.onopen = () => {
      clearTimeout(lateTimer);
      show("clock-state", "good", "streaming");
      if (SERVER_LEFT.includes(lastCode)) openEcho();
    };
    source.onerror = () => {
      clearTimeout(lateTimer);
      if (source.readyState === EventSource.CLOSED) stopClock("bad", "refused");
      else lateTimer = setTimeout(() => show("clock-state", "warn", "reconnecting"), 2500);
    };
    source.addEventListener("tick", (event) => tick(JSON.parse(event.data)));
  }

  function stopClock(state, text) {
    clearTimeout(lateTimer);
    source.close();
    source = null;
    lastTick = 0;
    $("clock-toggle").textContent = "Start";
    show("clock-state", state, text);
  }

  function tick(values) {
    const now = performance.now();
    $("clock-time").dateTime = values.time;
    $("clock-time").textContent = values.time.slice(11, 19);
    $("clock-tick").textContent = values.tick;
    $("clock-gap").textContent = lastTick ? `${Math.round(now - lastTick)} ms` : "–";
    if (values.uptime_s !== null) $("uptime").textContent = duration(values.uptime_s);
    lastTick = now;
  }

  $("clock-toggle").addEventListener("click", () => (source ? stopClock("waiting", "stopped") : startClock()));

  // Echo: one WebSocket. Echoes come in the order of the messages, so a queue of send times is enough.

  let socket = null, sentAt = [], lastCode = 0;

  function log(kind, way, what, ms) {
    const list = $("echo-log"), line = document.createElement("div");
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    line.className = kind;
    for (const [name, text] of [["way", way], ["what", what], ["ms", ms]]) {
      const part = line.appendChild(document.createElement("span"));
      part.className = name;
      part.textContent = text ?? "";
    }
    list.append(line);
    if (list.childElementCount > LOG_LINES) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  const named = (content) => (typeof content === "string" ? content : `${content.byteLength} bytes of binary`);

  function sendEcho(content) {
    log("sent", "→", named(content));
    sentAt.push(performance.now());
    socket.send(content);
  }

  function allowEcho(open, idle) {
    for (const id of ["echo-send", "echo-binary", "close-button"]) $(id).disabled = !open;
    $("reconnect").disabled = !idle;
  }

  function openEcho() {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url, "demo.echo");
    socket.binaryType = "arraybuffer";
    sentAt = [];
    lastCode = 0;
    show("echo-state", "warn", "connecting");
    allowEcho(false, false);
    socket.onopen = () => {
      show("echo-state", "good", socket.protocol ? `open, ${socket.protocol}` : "open");
      allowEcho(true, false);
      sendEcho("hello from the page");
    };
    socket.onmessage = (event) => {
      log("echo", "←", named(event.data), `${(performance.now() - sentAt.shift()).toFixed(1)} ms`);
    };
    socket.onclose = echoClosed;
  }

  function echoClosed(event) {
    lastCode = event.code;
    const reason = event.reason ? `: ${event.reason}` : "";
    show("echo-state", event.wasClean ? "waiting" : "bad", `closed, ${event.code}`);
    log("said", "·", `closed with code ${event.code}${reason}${event.wasClean ? "" : " (no closing handshake)"}`);
    allowEcho(false, true);
    // A server that stops closes its WebSockets first and then waits for its answers to end.
    // The clock is such an answer: let go of it, and ask again once a new server may be there.
    if (SERVER_LEFT.includes(event.code) && source) {
      stopClock("warn", "server stopped");
      setTimeout(() => source || startClock(), 3000);
    }
  }

  $("echo-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if ($("echo-text").value === "") return;
    sendEcho($("echo-text").value);
    $("echo-text").value = "";
  });
  $("echo-binary").addEventListener("click", () => sendEcho(crypto.getRandomValues(new Uint8Array(65536)).buffer));
  $("close-form").addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      socket.close(Number($("close-code").value), $("close-reason").value);
      show("echo-state", "warn", "closing");
      allowEcho(false, false);
    } catch (error) {
      log("said", "·", error.message);
    }
  });
  $("reconnect").addEventListener("click", openEcho);

  // Upload: XMLHttpRequest, because fetch does not tell how far a body has got.

  const inMB = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 1)} MB`;

  function upload(body) {
    const request = new XMLHttpRequest(), bar = $("upload-progress");
    const busy = (on) => {
      $("upload-random").disabled = $("upload-file").disabled = on;
      $("upload-cancel").disabled = !on;
    };
    for (const id of ["upload-bytes", "upload-rate", "upload-messages"]) $(id).textContent = "–";
    busy(true);
    bar.value = 0;
    show("upload-state", "warn", "sending");
    request.open("POST", "upload");
    request.upload.onprogress = (event) => {
      bar.value = event.loaded / event.total;
      show("upload-state", "warn", `${inMB(event.loaded)} of ${inMB(event.total)} sent`);
    };
    request.onload = () => (request.status === 200 ? counted(JSON.parse(request.response), body.size)
      : show("upload-state", "bad", `refused with status ${request.status}`));
    request.onerror = () => show("upload-state", "bad", "connection lost");
    request.onabort = () => show("upload-state", "waiting", "cancelled");
    request.onloadend = () => busy(false);
    $("upload-cancel").onclick = () => request.abort();
    request.send(body);
  }

  function counted(count, size) {
    const whole = count.bytes === size;
    $("upload-progress").value = 1;
    $("upload-bytes").textContent = inMB(count.bytes);
    $("upload-rate").textContent = count.seconds > 0 ? `${inMB(count.bytes / count.seconds)}/s` : "–";
    $("upload-messages").textContent = count.messages;
    show("upload-state", whole ? "good" : "bad", whole ? `all ${size.toLocaleString("en")} bytes arrived`
      : `${count.bytes} of ${size} bytes arrived`);
  }

  // A file that is chosen once more is no change unless the field is emptied first.
  $("upload-file").addEventListener("click", (event) => { event.target.value = ""; });
  $("upload-file").addEventListener("change", (event) => event.target.files[0] && upload(event.target.files[0]));
  $("upload-random").addEventListener("click", () => {
    // getRandomValues gives at most 65,536 bytes a call.
    const part = () => crypto.getRandomValues(new Uint8Array(62500));
    upload(new Blob(Array.from({ length: 160 }, part)));
  });

  startClock();
  openEcho();
})();
