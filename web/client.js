// The browser helper.
export {};
