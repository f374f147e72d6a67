//! Manifest files: many documents in many files become one set of objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{self, Parsed};
use super::yaml::{self, Duplicate};
use crate::model::Text;
use crate::model::finding::{Code, Finding, Place};
use crate::model::names::ObjectKey;
use crate::model::object::{Object, ObjectSet};
use crate::model::origin::{Origin, Positions};

/// What one file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct FileObjects {
    /// Its path as the user gave it.
    pub path: Text,
    /// The objects in the order of the text; on a syntax error those before it.
    pub objects: Vec<Arc<Object>>,
    /// Objects that were refused, as far as they say who they are.
    pub refused: Vec<ObjectKey>,
    /// What is wrong in it.
    pub findings: Vec<Finding>,
    /// Whether it is YAML or JSON to its end.
    pub completeness: Completeness,
}

/// Whether all of a file could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// To its end.
    Whole,
    /// Up to a syntax error.
    Broken,
}

/// Parses a file of any number of YAML documents, or of JSON.
pub fn file(path: &str, text: &str) -> FileObjects {
    let read = yaml::documents(text);
    let path: Text = path.into();
    let mut file = FileObjects {
        path: path.clone(),
        objects: Vec::new(),
        refused: Vec::new(),
        findings: read.duplicates.iter().map(|duplicate| duplicate_key(&path, duplicate)).collect(),
        completeness: Completeness::Whole,
    };
    for document in &read.documents {
        let origin = Origin { file: path.clone(), fields: Positions::new(&document.fields()) };
        let Parsed { objects, refused, findings } = object::object(&document.to_json(), Some(origin));
        file.objects.extend(objects.into_iter().map(Arc::new));
        file.refused.extend(refused);
        file.findings.extend(findings);
    }
    if let Some(error) = read.error {
        let place = Place { file: Some(path), line: Some(error.line), column: Some(error.column), ..Place::default() };
        file.findings.push(Finding::new(Code::Syntax, place, error.message));
        file.completeness = Completeness::Broken;
    }
    file
}

fn duplicate_key(path: &Text, duplicate: &Duplicate) -> Finding {
    let (line, column) = (Some(duplicate.at.line), Some(duplicate.at.column));
    let place = Place { file: Some(path.clone()), line, column, ..Place::default() };
    let key = duplicate.key.escape_debug();
    let message = format!(
        "`{key}` is written twice in one mapping, first in line {}; the later one counts",
        duplicate.first.line
    );
    Finding::new(Code::ObjectField, place, message)
}

/// The objects of all files, each key once: of two, the one in the first file in the order of paths stays.
pub fn assemble<'a>(files: impl Iterator<Item = &'a FileObjects>) -> ObjectSet {
    let mut files: Vec<_> = files.collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut set = ObjectSet::default();
    let mut kept: BTreeMap<&ObjectKey, &Arc<Object>> = BTreeMap::new();
    for file in files {
        set.findings.extend(file.findings.iter().cloned());
        for object in &file.objects {
            match kept.get(&object.key) {
                Some(first) => set.findings.push(duplicate_object(object, first)),
                None => drop(kept.insert(&object.key, object)),
            }
        }
    }
    set.objects = kept.into_values().cloned().collect();
    set
}

fn duplicate_object(object: &Object, first: &Object) -> Finding {
    let place = first.place("");
    let at = match (&place.file, place.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.to_string(),
        (None, Some(_) | None) => "another place".to_owned(),
    };
    let message = format!("{} is also written in {at}; that one counts", object.key);
    Finding::new(Code::ObjectDuplicate, object.place(""), message).help("remove one of them")
}
