//! The system's own programs: where they are, and one run of one.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Finds a program in the `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// One command, not yet run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
    input: String,
}

impl CommandLine {
    /// A command without input.
    pub fn new(program: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.into()).collect();
        Self { program: program.into(), args, environment: Vec::new(), input: String::new() }
    }

    /// One more environment variable.
    #[must_use]
    pub fn with_environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// What it reads on standard input.
    #[must_use]
    pub fn with_input(self, input: String) -> Self {
        Self { input, ..self }
    }

    /// Runs it and gives what it wrote to standard output.
    ///
    /// # Errors
    /// It cannot be started, or does not end with 0; then what it complained of.
    pub fn run(&self) -> Result<String, String> {
        let told = |problem: &dyn fmt::Display| format!("{}: {problem}", self.name());
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| told(&error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why on standard error.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|error| told(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        match complaint.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => Err(told(&line.trim())),
            None => Err(told(&output.status)),
        }
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

impl fmt::Display for CommandLine {
    /// As a shell takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.environment.iter().try_for_each(|(name, value)| write!(f, "{name}={value} "))?;
        write!(f, "{}", self.name())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))?;
        if self.input.is_empty() { Ok(()) } else { write!(f, " <<'END'\n{}END", self.input) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_command_gives_its_output_or_its_complaint() {
        let sh = find("sh").unwrap();
        let cat = CommandLine::new(&sh, &["-c", "cat"]).with_input("text\n".to_owned());
        assert_eq!(cat.run().unwrap(), "text\n");
        assert_eq!(cat.to_string(), "sh -c cat <<'END'\ntext\nEND");
        let fails = |script| CommandLine::new(&sh, &["-c", script]).run().unwrap_err();
        assert_eq!(fails("echo; echo no way >&2; exit 3"), "sh: no way");
        assert_eq!(fails("exit 3"), "sh: exit status: 3");
        assert!(
            CommandLine::new(Path::new("/nowhere/x"), &[]).run().unwrap_err().starts_with("x: No such file")
        );
    }
}
