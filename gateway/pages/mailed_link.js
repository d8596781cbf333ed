// What a mailed link opens. The token stands behind the `#`, so no server log sees it; it is spent only when a person
// presses the button, because mail scanners open links too.
'use strict';
const part = (id) => document.getElementById(id);
const say = (title, text) => { part('title').textContent = title; part('text').textContent = text; };
const token = new URLSearchParams(location.hash.slice(1)).get('token');

async function post(address, body) {
  const answer = await fetch(address, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  });
  const json = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(json.detail || json.title || `The server answered ${answer.status}.`);
  return json;
}

async function signIn() {
  part('sign-in').hidden = true;
  const signedIn = await post('/v1/auth/exchange', { token });
  sessionStorage.setItem('registrar', JSON.stringify(signedIn));
  if (!signedIn.confirmation) return say('You are signed in', 'You can close this page or go on in the application.');
  say('You are signed in', 'Your registration is being confirmed…');
  const answer = await fetch(`/v1/operations/${signedIn.confirmation.operation_id}?wait=20`, {
    headers: { Authorization: `Bearer ${signedIn.access_token}` },
  });
  const operation = await answer.json();
  const waits = operation.result && operation.result.status === 'waitlisted';
  const next = waits ? 'You keep your place on the waitlist; a mail tells when a seat is free.' : 'The next steps stand in the mail.';
  if (operation.state === 'succeeded') say('Your registration is confirmed', next);
  else if (operation.state === 'pending') say('You are signed in', 'The confirmation is on its way.');
  else say('You are signed in', (operation.problem && operation.problem.title) || 'The registration could not be confirmed.');
}

const failed = (error) => say('This did not work', `${error.message} Ask for a new link if this one is old.`);
history.replaceState(null, '', location.pathname);
if (!token) {
  say('This link is not complete', 'Open it again from the mail, or copy the whole of it.');
} else if (location.pathname === '/reset') {
  say('Set a new password', '');
  part('reset').hidden = false;
  part('reset').addEventListener('submit', (event) => {
    event.preventDefault();
    post('/v1/auth/reset', { token, password: part('password').value })
      .then(() => { part('reset').hidden = true; say('The password is set', 'Sign in with it from now on.'); })
      .catch(failed);
  });
} else {
  say('Welcome', 'Press the button to sign in and confirm that this mailbox is yours.');
  part('sign-in').hidden = false;
  part('sign-in').addEventListener('click', () => signIn().catch(failed));
}
