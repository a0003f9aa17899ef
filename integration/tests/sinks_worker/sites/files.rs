//! A directory, which is a file for a while: nothing can be made in it then.

use std::{fs, path::PathBuf};

use drakkar_core::{FilePayload, Payload};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Mortal, Site};

pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn start() -> Self {
        let files = Self(TempDir::new().unwrap());
        fs::create_dir(files.place()).unwrap();
        files
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("numbers")
    }

    fn aside(&self) -> PathBuf {
        self.0.path().join("aside")
    }
}

impl Site for Files {
    fn kind(&self) -> &'static str {
        "filesystem"
    }

    fn section(&self, _: &str) -> Value {
        json!({"base_path": self.place()})
    }

    fn away(&self) -> Value {
        json!({"base_path": "/dev/null/nowhere"})
    }

    /// Each in a file of its own: one that is open can be written to wherever it is.
    fn payload(&self, number: u32) -> Payload {
        FilePayload::line(number.to_string(), number.to_string()).sink("site").into()
    }

    fn set_password(&self, _: &str) {}
}

impl Mortal for Files {
    fn die(&self) {
        fs::rename(self.place(), self.aside()).unwrap();
        fs::write(self.place(), "").unwrap();
    }

    fn rise(&self) {
        fs::remove_file(self.place()).unwrap();
        fs::rename(self.aside(), self.place()).unwrap();
    }

    fn kept(&self) -> Vec<u32> {
        let files = fs::read_dir(self.place()).unwrap().map(|entry| entry.unwrap().path());
        let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
        let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }
}
