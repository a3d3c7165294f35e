// Waiting with deadlines, never for a guess.

/** How long a page may take to notice a fault, and to recover from it. */
export const PATIENCE_MS = 60_000;

/** Gives what the promise gives, or fails when it takes too long. */
export async function within(what, promise, milliseconds = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`did not come in time: ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until the condition gives something true, and gives that. */
export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    const found = await within(what, condition(), deadline - Date.now());
    if (found) return found;
    await pause(50);
  }
  throw new Error(`did not come in time: ${what}`);
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
