//! Draws what each policy of load balancing does: a real proxy, real hosts, and how many of its requests each host gets before, during
//! and after something happens. `scripts/pictures` writes the pictures of the docs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod drawing;
mod scenario;
mod stage;

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let mut arguments = env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().expect("usage: pictures FOLDER [NAME...]"));
    let wanted: Vec<String> = arguments.map(|name| name.to_string_lossy().into_owned()).collect();
    fs::create_dir_all(&folder).unwrap();
    for scenario in scenario::all() {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == scenario.name) {
            continue;
        }
        let phases = stage::play(&scenario);
        for phase in &phases {
            println!("{}: {}: {:?}", scenario.name, phase.title, phase.requests);
        }
        let file = folder.join(format!("{}.svg", scenario.name));
        fs::write(&file, drawing::draw(&scenario, &phases)).unwrap();
    }
}
