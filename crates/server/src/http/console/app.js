// Keeps an open page fresh, shows times as whoever looks has them, and sends bundles. Without it
// every page still works; only a bundle is then sent with the command.
'use strict';
const $ = id => document.getElementById(id);

// ---- times -------------------------------------------------------------------------------------
const shown = new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'short'});
function localTimes(root) {
  for (const time of root.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.textContent;
    time.textContent = shown.format(at);
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
  } catch {
    // The server is away; the stream of events tells when it is back.
  } finally {
    asking = false;
    if (again) { again = false; setTimeout(refresh, PAUSE_MS); }
  }
}
const PAUSE_MS = 300;

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
keys();
counts();
uploads();
watch();
