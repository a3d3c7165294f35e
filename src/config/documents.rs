//! Completions for shells and man pages, made from the definition of the options.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The program's name, for which a shell completes.
const PROGRAM: &str = "backend-signal";

/// A script that makes a shell complete subcommands, options and values.
pub(super) fn completions(definition: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut for_readers(definition), PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    // The library writes the hyphen of a program's name in two ways, so bash would complete no option of a subcommand (clap issue 6421).
    script.replace("backend__subcmd__signal", "backend__signal")
}

/// The man page of the program, or of one of its subcommands.
pub(super) fn man_page(definition: Command, subcommand: Option<&str>) -> Result<String, String> {
    let mut definition = for_readers(definition);
    definition.build();
    let page = match subcommand {
        Some(name) => definition.find_subcommand(name).ok_or_else(|| format!("there is no subcommand '{name}'"))?,
        None => &definition,
    };
    let mut text = Vec::new();
    Man::new(page.clone()).render(&mut text).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// clap copies a global option into every subcommand, also into those that refuse it. Those that take it have it themselves.
fn for_readers(definition: Command) -> Command {
    definition.mut_args(|option| option.global(false))
}
