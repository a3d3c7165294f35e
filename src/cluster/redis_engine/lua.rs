//! The scripts of the directory: their texts, and how a loaded one is called.

use redis::Cmd;

/// The scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Hello,
    Beat,
    Told,
    Owe,
    Claim,
    TakeOver,
    Revive,
    Release,
    Bury,
    Tell,
    Find,
    List,
    Bye,
}

/// Joins the parts of a script.
macro_rules! script {
    ($($name:literal),*) => { concat!($(include_str!(concat!("scripts/", $name, ".lua"))),*) };
}

/// The texts, in the order of [`Script`].
pub(super) const SCRIPTS: [&str; 13] = [
    script!("common", "hello"),
    script!("common", "known", "beat"),
    script!("common", "known", "told"),
    script!("common", "known", "owe"),
    script!("common", "known", "claim"),
    script!("common", "known", "take_over"),
    script!("common", "known", "revive"),
    script!("common", "known", "release"),
    script!("common", "known", "bury"),
    script!("common", "known", "tell"),
    script!("common", "known", "find"),
    script!("common", "known", "list"),
    script!("common", "known", "bye"),
];

/// The names under which the server knows the loaded scripts.
pub(super) struct Loaded(pub(super) Vec<String>);

impl Loaded {
    /// Begins a call of a script. The number of its keys, the keys and the arguments follow.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.0[script as usize]);
        command
    }
}
