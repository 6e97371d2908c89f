// Keeps an open page fresh, shows times as whoever looks has them, and sends bundles. Without it
// every page still works; only a bundle is then sent with the command.
'use strict';
const $ = id => document.getElementById(id);

// ---- times -------------------------------------------------------------------------------------
// How long ago a moment is stands on the page, and the moment in its title; of lists that are read
// for their moments (`exact`) it is the other way round. UTC stands in every title.
const format = new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'short'});
const utc = at => at.toISOString().slice(0, 16).replace('T', ' ') + ' UTC';
// The clock here may be wrong: the page says when it was made.
const skewMs = (Date.parse($('main').dataset.now) || Date.now()) - Date.now();
function length(s) {
  if (s < 90) return s + ' s';
  if (s < 5400) return Math.floor((s + 30) / 60) + ' min';
  if (s < 172800) return Math.floor((s + 1800) / 3600) + ' h';
  return Math.floor((s + 43200) / 86400) + ' days';
}
function distance(at) {
  const gone = Math.trunc((Date.now() + skewMs - at) / 1000);
  if (gone < 0) return 'in ' + length(-gone);
  return gone < 10 ? 'just now' : length(gone) + ' ago';
}
function localTimes(root) {
  for (const time of root.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const exact = time.classList.contains('exact'), local = format.format(at);
    const text = exact ? local : distance(at);
    const title = exact ? `${utc(at)}, ${distance(at)}` : `${local} (${utc(at)})`;
    if (time.textContent !== text) time.textContent = text;
    if (time.title !== title) time.title = title;
  }
}

// ---- places ------------------------------------------------------------------------------------
// Whoever follows a link to something that is folded up wants to see it.
function unfold() {
  const it = $(decodeURIComponent(location.hash.slice(1)));
  if (it && it.nodeName === 'DETAILS') { it.open = true; it.scrollIntoView(); }
}
addEventListener('hashchange', unfold);
unfold();

// ---- changes -----------------------------------------------------------------------------------
// Makes `old` like `next` without touching what is the same: the focus, the selection, what a
// person has typed and which details are open stay as they are.
function patch(old, next) {
  const same = old.nodeType === next.nodeType && old.nodeName === next.nodeName
    && (old.id || '') === (next.id || '');
  if (!same) { old.replaceWith(next); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const {name} of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const {name, value} of [...next.attributes]) {
    if (old.getAttribute(name) !== value && name !== 'open') old.setAttribute(name, value);
  }
  const from = [...old.childNodes], to = [...next.childNodes];
  to.forEach((node, at) => { if (from[at]) patch(from[at], node); else old.append(node); });
  from.slice(to.length).forEach(node => node.remove());
}

let asking = false, again = false;
async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const answer = await fetch(location.href, {headers: {accept: 'text/html'}, redirect: 'manual'});
    // Signed out, or gone: the page says so when somebody acts.
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    localTimes(next);
    for (const region of document.querySelectorAll('[data-live]')) {
      const found = next.getElementById(region.id);
      if (found) patch(region, found);
    }
    foreseen();
  } catch {
    // The server is away; the stream of events tells when it is back.
  } finally {
    asking = false;
    if (again) { again = false; setTimeout(refresh, PAUSE_MS); }
  }
}
const PAUSE_MS = 300, TICK_MS = 5000;

function watch() {
  const wanted = ($('main').dataset.watch || '').split(' ').filter(Boolean);
  if (!wanted.length) return;
  const concerns = name => name === 'all'
    || wanted.some(it => it.endsWith(':') ? name.startsWith(it) : name === it);
  let timer, was = false, stream;
  const open = () => {
    stream = new EventSource('/console/events');
    stream.onopen = () => { if (was) refresh(); was = true; };
    stream.onmessage = event => {
      if (!concerns(event.data)) return;
      clearTimeout(timer);
      timer = setTimeout(refresh, PAUSE_MS);
    };
  };
  // A page in the background costs the server nothing; it catches up when it is looked at.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) stream.close();
    else { open(); refresh(); }
  });
  if (!document.hidden) open();
}

// ---- uploads -----------------------------------------------------------------------------------
const sentence = text => text ? text[0].toUpperCase() + text.slice(1) : '';
function said(kind, title, text) {
  const note = document.createElement('div'), bold = document.createElement('b');
  note.className = 'note ' + kind;
  bold.textContent = sentence(title);
  note.append(bold);
  if (text) {
    const more = document.createElement('p');
    more.textContent = sentence(text).replace(/([^.?!])$/, '$1.');
    note.append(more);
  }
  $('uploadSaid').replaceChildren(note);
}
function upload(form, file) {
  const request = new XMLHttpRequest();
  $('sent').hidden = false;
  $('uploadSaid').replaceChildren();
  $('bundle').disabled = true;
  const show = (part, text) => { $('sentBar').value = part; $('sentText').textContent = text; };
  show(0, file.name);
  request.upload.onprogress = event => {
    if (!event.lengthComputable) return;
    const part = Math.floor(event.loaded * 100 / event.total);
    show(part, part < 100 ? part + ' %' : 'The server reads it…');
  };
  request.onload = () => {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* told below */ }
    if (request.status < 300 && answer.page) { location.assign(answer.page); return; }
    const {message, hint} = answer.error || {};
    over();
    said('bad', message || `The server answered ${request.status}`, hint || 'Try again');
  };
  request.onerror = () => { over(); said('bad', 'The upload was cut off', 'nothing was kept; try again'); };
  const over = () => { $('sent').hidden = true; $('bundle').disabled = false; $('bundle').value = ''; };
  request.open('POST', form.dataset.upload);
  request.send(file);
}
function uploads() {
  const form = $('upload');
  if (!form) return;
  form.onsubmit = event => event.preventDefault();
  $('bundle').onchange = () => { if ($('bundle').files[0]) upload(form, $('bundle').files[0]); };
  form.ondragover = event => { event.preventDefault(); form.classList.add('over'); };
  form.ondragleave = () => form.classList.remove('over');
  form.ondrop = event => {
    event.preventDefault();
    form.classList.remove('over');
    if (event.dataTransfer.files[0]) upload(form, event.dataTransfer.files[0]);
  };
}

// ---- small things ------------------------------------------------------------------------------
function counts() {
  for (const field of document.querySelectorAll('[data-count]')) {
    let timer;
    const ask = async () => {
      const place = $(field.dataset.count);
      if (!field.value && field.id === 'canary') { place.textContent = ''; return; }
      const answer = await fetch('/console/count?labels=' + encodeURIComponent(field.value));
      if (answer.ok) place.textContent = await answer.text();
    };
    field.oninput = () => { clearTimeout(timer); timer = setTimeout(() => ask().catch(() => {}), PAUSE_MS); };
  }
}
// A field for a moment knows no zone: it is filled in as whoever looks has it, and sent in UTC.
function moments() {
  for (const hidden of document.querySelectorAll('[data-utc-of]')) {
    const field = $(hidden.dataset.utcOf);
    const tell = () => {
      const at = new Date(field.value);
      hidden.value = Number.isNaN(at.getTime()) ? '' : at.toISOString();
      field.title = hidden.value && utc(at);
    };
    field.onchange = tell;
    hidden.form.addEventListener('submit', tell);
    tell();
  }
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const place of document.querySelectorAll('[data-zone]')) place.textContent = 'your time' + (zone ? `, ${zone}` : '');
}
// Of what would go wrong with each release, that of the chosen one.
function foreseen() {
  const choice = $('release');
  if (!choice || !$('foreseen')) return;
  for (const found of $('foreseen').querySelectorAll('[data-release]')) {
    found.hidden = found.dataset.release !== choice.value;
    for (const field of found.querySelectorAll('input')) field.disabled = found.hidden;
  }
  choice.onchange = foreseen;
}
// What is foreseen of a new campaign follows what is chosen.
function found() {
  const region = $('found');
  if (!region) return;
  let asked = 0, timer;
  const ask = async () => {
    const mine = ++asked;
    const chosen = new URLSearchParams({release: $('release').value, labels: $('labels').value});
    const answer = await fetch('/campaigns/new?' + chosen, {redirect: 'manual'});
    if (!answer.ok) return;
    const text = await answer.text();
    // Whoever has chosen something else meanwhile is not shown what was before.
    if (mine === asked) patch(region, new DOMParser().parseFromString(text, 'text/html').getElementById('found'));
  };
  $('release').addEventListener('change', () => ask().catch(() => {}));
  $('labels').addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(() => ask().catch(() => {}), PAUSE_MS); });
}
function keys() {
  document.addEventListener('keydown', event => {
    const filter = document.querySelector('[data-filter]');
    const types = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.nodeName);
    if (event.key !== '/' || types || !filter || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    filter.focus();
    filter.select();
  });
  const back = document.querySelector('[data-back]');
  if (back && history.length > 1) {
    back.hidden = false;
    back.onclick = event => { event.preventDefault(); history.back(); };
  }
}

localTimes(document);
setInterval(() => { if (!document.hidden) localTimes(document); }, TICK_MS);
moments();
foreseen();
found();
keys();
counts();
uploads();
watch();
