// Uses the console of a registry as an operator does, in one browser. It is given the address of the console of the
// scene, that of one with a thousand providers, and that of what stops and starts the first server.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [base, large, control, executablePath] = process.argv.slice(2);
const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const patience = 90_000; // a loaded machine takes its time
const home = mkdtempSync(join(tmpdir(), 'console-'));
const errors = [], foreign = [];
let expected = false; // while an error is asked for

const browser = await chromium.launch({
  executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
  env: { ...process.env, HOME: home },
});

async function open(options = {}, path = '', from = base) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(patience);
  context.setDefaultNavigationTimeout(patience);
  context.on('request', (r) => { if (!r.url().startsWith('data:') && new URL(r.url()).origin !== new URL(from).origin) foreign.push(r.url()); });
  context.on('page', (page) => {
    page.on('console', (m) => { if (!expected && ['error', 'warning'].includes(m.type())) errors.push(`${page.url()}: ${m.text()}`); });
    page.on('pageerror', (e) => errors.push(`${page.url()}: ${e}`));
    page.on('dialog', (d) => { errors.push('dialog ' + d.message()); d.dismiss(); });
  });
  const page = await context.newPage();
  await page.goto(from + path);
  return page;
}

const api = async (path) => (await fetch(base + 'v1/runtime/' + path)).json();
const providerOf = (service, provider) => api(`providers/x?service=${service}&provider=${provider}`).then((d) => d.info);
const path = (name, values) => `${name}?${new URLSearchParams(values)}`;
const done = (page, text) => page.locator('#done', { hasText: text }).waitFor();
const live = (page) => page.locator('#live', { hasText: 'live' }).waitFor();

async function step(name, run) {
  const began = Date.now();
  await run();
  console.log(`${name}: ${Date.now() - began} ms`);
}

try {
  await step('finds the unserved service', async () => {
    const page = await open();
    const first = await page.locator('.troubles > li').first().innerText();
    for (const words of ['payments', 'no provider', 'stripe', 'i/o timeout', 'next trial in ', ' min']) assert.ok(first.includes(words), `${words} in ${first}`);
    assert.match(await page.title(), /2 services need attention/);
    await page.keyboard.press('/');
    await page.keyboard.type('openai');
    await page.keyboard.press('Enter');
    await page.getByText('1 provider found').waitFor();
    await page.context().close();
  });

  await step('resets a breaker by keyboard', async () => {
    const page = await open();
    const reach = async (name) => {
      for (let i = 0; i < 80; i++) {
        await page.keyboard.press('Tab');
        if (await page.evaluate((name) => (document.activeElement.ariaLabel || document.activeElement.textContent) === name, name)) return;
      }
      assert.fail(`${name} is not reached by Tab`);
    };
    await reach('Skip to content');
    await reach('Reset breaker of stripe in payments');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Reset breaker: stripe of payments' }).waitFor();
    await reach('Reset breaker');
    await page.keyboard.press('Enter');
    await done(page, 'the breaker of stripe was reset');
    assert.equal((await providerOf('payments', 'stripe')).breaker.state, 'closed');
    await page.getByRole('button', { name: /Open again for/ }).click();
    await done(page, 'stripe gets no calls for');
    assert.equal((await providerOf('payments', 'stripe')).breaker.state, 'open');
    await page.context().close();
  });

  await step('changes a priority and takes it back', async () => {
    const page = await open({}, path('provider', { service: 'chat', provider: 'anthropic' }));
    await page.getByRole('link', { name: 'Set priority…' }).click();
    await page.getByLabel('Priority').selectOption('FALLBACK');
    await page.getByLabel('Group', { exact: true }).fill('7');
    await page.getByLabel('Reason').fill('by hand');
    await page.getByRole('button', { name: 'Set priority' }).click();
    await done(page, 'anthropic is now FALLBACK in group 7');
    let info = await providerOf('chat', 'anthropic');
    assert.deepEqual([info.priority, info.group], ['FALLBACK', 7]);
    await page.getByRole('button', { name: 'Undo' }).click();
    await done(page, 'anthropic is now NORMAL in group 1');
    info = await providerOf('chat', 'anthropic');
    assert.deepEqual([info.priority, info.group], ['NORMAL', 1]);
    await page.context().close();
  });

  await step('works without JavaScript', async () => {
    const page = await open({ javaScriptEnabled: false });
    await page.getByRole('link', { name: 'Reset breaker of adyen in payments' }).click();
    await page.getByRole('button', { name: 'Reset breaker' }).click();
    await done(page, 'the breaker of adyen was reset');
    assert.equal((await providerOf('payments', 'adyen')).breaker.state, 'closed');
    await page.goto(base + path('explain', { service: 'chat' }));
    await page.getByRole('heading', { name: 'anthropic would be picked now' }).waitFor();
    await page.context().close();
  });

  await step('two tabs agree', async () => {
    const one = await open({}, path('provider', { service: 'search', provider: 'index-b' }));
    const two = await open({}, path('provider', { service: 'search', provider: 'index-b' }));
    const late = await open({}, path('act', { verb: 'drain', service: 'search', provider: 'index-b' }));
    await Promise.all([live(one), live(two)]);
    await two.locator('#pause').focus();
    await one.getByRole('link', { name: 'Drain…' }).click();
    await one.getByRole('button', { name: 'Drain', exact: true }).click();
    await done(one, 'index-b gets no new calls');
    await two.locator('h1', { hasText: 'drained' }).waitFor();
    assert.equal(await two.evaluate(() => document.activeElement.id), 'pause', 'the focus stays');
    expected = true;
    await late.getByRole('button', { name: 'Drain', exact: true }).click();
    await late.locator('main > p', { hasText: 'it was changed meanwhile' }).waitFor();
    expected = false;
    await one.getByRole('button', { name: 'Undrain' }).click();
    await two.locator('h1', { hasText: 'healthy' }).waitFor();
    await Promise.all([one, two, late].map((p) => p.context().close()));
  });

  await step('polls where there is no stream, and keeps what was closed', async () => {
    const page = await open({}, 'events');
    expected = true;
    await page.route('**/v1/runtime/events', (route) => route.abort());
    await page.goto(base);
    await live(page);
    await page.locator('details.group', { hasText: 'payments' }).locator('summary').click();
    await page.locator('details.group:not([open])', { hasText: 'payments' }).waitFor();
    const answer = await fetch(base + 'v1/runtime/providers/bert/drain', { method: 'POST', headers: { 'Content-Type': 'application/json', 'If-Match': '*' }, body: '{}' });
    assert.equal(answer.status, 200);
    await page.locator('.lines', { hasText: 'drain done' }).waitFor();
    await page.locator('details.group:not([open])', { hasText: 'payments' }).waitFor();
    expected = false;
    await page.context().close();
  });

  await step('survives a restart of the server', async () => {
    const page = await open();
    await live(page);
    expected = true;
    await fetch(control + '/stop', { method: 'POST' });
    await page.locator('#live', { hasText: 'stale' }).waitFor();
    await page.locator('html.stale').waitFor();
    await fetch(control + '/start', { method: 'POST' });
    await live(page);
    await page.context().close();
    expected = false;
  });

  const translation = (name) => `services:\n  translate:\n    providers:\n      - {name: ${name}, kind: model, settings: {language: de}}\n`;
  for (const javaScriptEnabled of [true, false]) {
    await step(`plans, applies and takes back a document, ${javaScriptEnabled ? 'with' : 'without'} JavaScript`, async () => {
      const page = await open({ javaScriptEnabled });
      await page.getByRole('link', { name: 'Configuration' }).click();
      expected = true;
      await page.getByLabel('Document, as YAML or JSON').fill(translation('deep').replace('kind', 'kynd'));
      await page.getByRole('button', { name: 'Check and plan' }).click();
      await page.getByRole('heading', { name: /problems? in the document/ }).waitFor();
      await page.getByText('line 4, column 22').waitFor();
      expected = false;
      for (const name of ['deep', 'wide']) {
        await page.getByLabel('Document, as YAML or JSON').fill(translation(name));
        await page.getByRole('button', { name: 'Check and plan' }).click();
        await page.getByRole('heading', { name: 'What it would change' }).waitFor();
        await page.getByLabel('Reason').fill('by hand');
        await page.getByRole('button', { name: 'Apply', exact: true }).click();
        await done(page, 'the document was applied');
        assert.equal((await providerOf('translate', name)).name, name);
      }
      await page.getByRole('button', { name: 'Undo: apply the former document' }).click();
      await done(page, 'the former document was applied');
      assert.equal((await providerOf('translate', 'deep')).name, 'deep');
      await page.getByRole('link', { name: 'Edit it' }).click();
      assert.ok((await page.getByLabel('Document, as YAML or JSON').inputValue()).includes('"language": "de"'));
      await page.context().close();
    });
  }

  await step('shows the fleet', async () => {
    const page = await open({}, 'fleet');
    await live(page);
    const first = await page.locator('tbody tr').first().innerText();
    for (const words of ['agent-2', 'suspect', 'its lease was not renewed', 'this process, agent-1']) assert.ok(first.includes(words), `${words} in ${first}`);
    await page.getByRole('link', { name: 'agent-1' }).click();
    await page.getByRole('heading', { name: '2 providers announced' }).waitFor();
    await page.getByRole('link', { name: 'openai-eu' }).click();
    await page.getByRole('heading', { name: 'openai-eu' }).waitFor();
    await page.context().close();
  });

  const pages = ['', '?q=a', path('service', { name: 'payments' }), path('provider', { service: 'payments', provider: 'stripe' }), path('explain', { service: 'chat' }),
    'events', 'startup', 'configuration', 'configuration?edit=true', 'fleet', path('fleet', { node: 'agent-1' }), path('act', { verb: 'configure' }), path('act', { verb: 'set_priority', service: 'chat', provider: 'local' }), path('act', { verb: 'set_limits', service: 'chat', provider: 'local' })];

  // What forms lead to is looked at as well.
  const answers = ['plan of a document', 'problems of a document'];
  async function visit(page, at) {
    const answer = answers.indexOf(at);
    if (answer < 0) return page.goto(base + at);
    await page.goto(base + 'configuration');
    expected = true;
    await page.getByLabel('Document, as YAML or JSON').fill(answer === 0 ? translation('other') : '{');
    await page.getByRole('button', { name: 'Check and plan' }).click();
    await page.locator('#plan, #wrong').waitFor();
    expected = false;
  }

  for (const colorScheme of ['light', 'dark']) {
    await step(`is accessible, ${colorScheme}`, async () => {
      const page = await open({ colorScheme, bypassCSP: true });
      for (const at of [...pages, ...answers]) {
        await visit(page, at);
        await page.addScriptTag({ path: axe });
        const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
        assert.deepEqual(found.violations.map((v) => [at, v.id, v.help, ...v.nodes.map((n) => n.html)]), []);
        assert.ok(found.passes.length > 15);
      }
      await page.context().close();
    });
  }

  await step('fits 320 pixels, and paper', async () => {
    const page = await open({ viewport: { width: 320, height: 640 } });
    for (const at of [...pages, ...answers]) {
      await visit(page, at);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 320, `${at} scrolls sideways`);
    }
    await page.goto(base);
    await page.emulateMedia({ media: 'print' });
    assert.ok(await page.locator('nav').first().isHidden());
    assert.ok(await page.locator('.troubles').isVisible());
    await page.context().close();
  });

  await step('1,000 providers', async () => {
    const page = await open({}, '', large);
    const paints = [];
    for (let i = 0; i < 5; i++) {
      await page.goto(large);
      const paint = await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
      paints.push(Math.round(await paint.jsonValue()));
    }
    console.log(`first paint with 1,000 providers, five times: ${paints.join(', ')} ms`);
    await page.context().close();
  });

  assert.deepEqual(errors, [], 'errors of the browser');
  assert.deepEqual(foreign, [], 'requests to other origins');
  console.log('all checks passed');
} finally {
  await browser.close();
  rmSync(home, { recursive: true, force: true });
}
