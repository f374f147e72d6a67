//! The project's rules as checks. Each file here is one kind of rule; clippy holds the ones it can express.

mod arrows;
mod catalogue;
mod fuzz;
mod leftovers;
mod purity;
mod shape;

use anyhow::Result;

use crate::breach::Breach;
use crate::source::Source;
use crate::workspace::Workspace;

/// Checks every rule, in the order of the paths.
pub fn check(workspace: &Workspace) -> Result<Vec<Breach>> {
    let files = workspace.text_files()?;
    let sources: Vec<Source> =
        files.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(path, text)| Source::new(path, text)).collect();
    let mut breaches = arrows::check(&workspace.crates);
    breaches.extend(arrows::in_the_picture(&workspace.crates, &files));
    for source in &sources {
        breaches.extend(purity::check(source));
        breaches.extend(shape::check(source));
        breaches.extend(leftovers::in_code(source));
    }
    breaches.extend(leftovers::in_text(&workspace.root, &files));
    breaches.extend(catalogue::check(&files, &sources));
    breaches.extend(fuzz::check(&workspace.root, &files));
    breaches.sort();
    println!("{} crates, {} Rust files, {} files in all", workspace.crates.len(), sources.len(), files.len());
    Ok(breaches)
}
