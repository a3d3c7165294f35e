// The kinds of fault. Each ends when the call can recover: the cable is whole, the daemon is there, the page loads.

import { pause, until } from "./wait.mjs";

/**
 * Each gets `caller`, `callee`, the `daemon`, `chance` (random numbers) and `recovers(what)`, which waits until the call works and
 * takes the time.
 */
export const FAULTS = {
  "the caller reloads": ({ caller }) => caller.reload(),
  "the callee reloads": ({ callee }) => callee.reload(),
  "both reload": ({ caller, callee }) => Promise.all([caller.reload(), callee.reload()]),
  "the caller's cable is cut": ({ caller, chance }) => cut(caller, chance),
  "the callee's cable is cut": ({ callee, chance }) => cut(callee, chance),
  "the caller's cable is silent": ({ caller, chance }) => silence(caller, chance),
  "the callee's cable is silent": ({ callee, chance }) => silence(callee, chance),
  "a tab takes the caller over": (storm) => takeOver(storm, storm.caller),
  "a tab takes the callee over": (storm) => takeOver(storm, storm.callee),
  "SIGTERM restarts the daemon": (storm) => restart(storm, "SIGTERM"),
  "SIGKILL restarts the daemon": (storm) => restart(storm, "SIGKILL"),
  "no packet of the call passes": mediaCut,
  "a fault while they negotiate": negotiation,
};

async function cut({ cable }, chance) {
  cable.cut();
  await pause(chance.between(0, 3000));
  cable.heal();
}

/** The page has to notice by itself that no heartbeat comes. */
async function silence(side, chance) {
  side.cable.silence();
  await until(`the ${side.role} notices the silence`, async () => (await side.state()) !== "live");
  await pause(chance.between(0, 1000));
  side.cable.heal();
}

/** The signals still pass. */
async function mediaCut({ caller, callee, media }) {
  const since = Date.now();
  media.cut = true;
  await Promise.any([caller, callee].map((side) => side.noted(since, "restart", "ice_failed")));
  media.cut = false;
}

async function restart({ daemon, chance }, signal) {
  await daemon.stop(signal);
  await pause(chance.between(0, 2000));
  await daemon.start();
}

/** A second tab of the same device is in the call, then closes, and the first one takes the call back. */
async function takeOver({ recovers }, side) {
  const first = side.page;
  const since = Date.now();
  side.page = await side.open();
  await side.noted(since, "state", "superseded", first);
  await recovers("the second tab is in the call");
  await side.page.close();
  side.page = first;
  await first.evaluate(() => window.storm.takeOver());
}

/** A page loads, and within 300 ms of its call comes another fault. */
async function negotiation(storm) {
  const { caller, callee, chance } = storm;
  const since = Date.now();
  const side = chance.pick([caller, callee]);
  await side.reload();
  await side.noted(since, "talks");
  await pause(chance.between(0, 300));
  const other = side === caller ? callee : caller;
  const faults = [() => side.reload(), () => other.reload(), () => cut(side, chance), () => cut(other, chance),
    () => silence(side, chance), () => silence(other, chance), () => restart(storm, "SIGTERM"), () => restart(storm, "SIGKILL")];
  await chance.pick(faults)();
}
