//! networking.k8s.io/v1 Ingress.

use super::meta::{CLASS_ANNOTATION, class_annotation};
use super::read::{Field, LeftOut, Read, Reader, shown};
use super::{status, syntax};
use crate::model::exact::exact;
use crate::model::finding::{Code, Severity};
use crate::model::names::HostPattern;
use crate::model::object::{Ingress, IngressBackend, IngressPath, IngressRule, IngressTls, Meta, PathType, PortRef};
use crate::model::text::Text;

const RULE: &[&str] = &["host", "http"];

/// What `Exact` and `Prefix` paths must not contain or end with.
const INVALID_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const INVALID_SUFFIXES: [&str; 2] = ["/..", "/."];

pub(super) fn ingress(read: &mut Reader<'_>, root: Field<'_>, meta: &Meta) -> Read<Ingress> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let spec = root.get("spec");
    read.mapping(spec, &["ingressClassName", "defaultBackend", "tls", "rules"])?;
    let class = class(read, root, meta)?;
    let rules_field = spec.get("rules");
    let mut rules = Vec::new();
    let mut has_rules = false;
    for (index, field) in indexed(read, &rules_field)? {
        has_rules = true;
        rules.extend(rule(read, field, index));
    }
    let default_field = spec.get("defaultBackend");
    let default_backend = match (default_field.is_absent(), has_rules) {
        (true, true) => None,
        (true, false) => return read.refuse(spec, "either `defaultBackend` or `rules` is required", ""),
        (false, true) => backend(read, default_field).ok(),
        (false, false) => Some(backend(read, default_field)?),
    };
    let tls_field = spec.get("tls");
    let mut tls = Vec::new();
    for (index, field) in indexed(read, &tls_field).into_iter().flatten() {
        tls.extend(ingress_tls(read, field, index));
    }
    share_hosts(&rules, &mut tls);
    let published = status::published(read, root);
    Ok(Ingress { class, default_backend, tls: exact(tls), rules: exact(rules), published })
}

/// The names of certificates are nearly always those of the rules: then they are kept once.
fn share_hosts(rules: &[IngressRule], tls: &mut [IngressTls]) {
    for host in tls.iter_mut().flat_map(|tls| &mut tls.hosts) {
        if let Some(rule) = rules.iter().find(|rule| rule.host == *host) {
            host.clone_from(&rule.host);
        }
    }
}

/// A list's items with their indices.
fn indexed<'b>(read: &mut Reader<'_>, field: &'b Field<'_>) -> Read<impl Iterator<Item = (u16, Field<'b>)> + use<'b>> {
    let length = field.json().as_array().map_or(0, Vec::len);
    if length > usize::from(u16::MAX) {
        return read.refuse(*field, format!("{field} holds {length} items; {} are allowed", u16::MAX), "");
    }
    Ok((0..u16::MAX).zip(read.list(field)?))
}

fn class(read: &mut Reader<'_>, root: Field<'_>, meta: &Meta) -> Read<Option<Text>> {
    let (spec, metadata) = (root.get("spec"), root.get("metadata"));
    let field = spec.get("ingressClassName");
    let named = read.text(field)?;
    if let Some(name) = named {
        read.check(field, name, syntax::subdomain)?;
    }
    let annotated = class_annotation(meta);
    if let (Some(named), Some(annotated)) = (named, annotated)
        && read.is_from_file()
    {
        let message = format!("the class {} is ignored: `ingressClassName` is {}", shown(annotated), shown(named));
        let annotations = metadata.get("annotations");
        let finding = read.note(annotations.get(CLASS_ANNOTATION), Code::ObjectInvalid, message);
        finding.help = "remove the annotation: the API server refuses an Ingress with both".into();
        finding.severity = Severity::Warning;
    }
    Ok(named.or(annotated).map(Into::into))
}

fn rule(read: &mut Reader<'_>, field: Field<'_>, index: u16) -> Read<IngressRule> {
    read.mapping(field, RULE)?;
    let host_field = field.get("host");
    let host = match read.text(host_field)? {
        None if has_typing_error(field) => {
            let help = "name the host under `host`, or remove the unknown field";
            return read.refuse(field, format!("{field} has no `host` but a field that is not known"), help);
        }
        None => HostPattern::Any,
        Some(text) => host(read, host_field, text)?,
    };
    let http = field.get("http");
    if http.is_absent() {
        return Ok(IngressRule { index, host, paths: None });
    }
    read.mapping(http, &["paths"])?;
    let paths_field = http.get("paths");
    let mut paths = Vec::new();
    let mut has_paths = false;
    for (index, field) in indexed(read, &paths_field)? {
        has_paths = true;
        paths.extend(path(read, field, index));
    }
    if !has_paths {
        return read.refuse(paths_field, "`paths` is required", "leave `http` out for a rule without paths");
    }
    Ok(IngressRule { index, host, paths: Some(exact(paths)) })
}

/// Without a host a rule means every host, which nobody should get from a misspelt `host`. The API is frozen, so
/// that no later version can add a field.
fn has_typing_error(rule: Field<'_>) -> bool {
    rule.json().as_object().is_some_and(|map| map.keys().any(|key| !RULE.contains(&key.as_str())))
}

/// A host of a rule or a certificate, never empty.
fn host(read: &mut Reader<'_>, field: Field<'_>, text: &str) -> Read<HostPattern> {
    if text == "*" {
        return read.refuse(field, "`*` is not a host name", "leave `host` out to mean every host");
    }
    let pattern = match text.parse::<HostPattern>() {
        Ok(pattern) => pattern,
        Err(_) if text.contains('*') => {
            return read.refuse(
                field,
                format!("{} is not a wildcard: `*.` and a host name are needed", shown(text)),
                "",
            );
        }
        Err(_) if text.len() > 253 => {
            return read.refuse(field, format!("{} is longer than a host name may be", shown(text)), "");
        }
        Err(_) if text.contains(char::is_control) => {
            return read.refuse(field, format!("{} is not a host name", shown(text)), "");
        }
        Err(message) => return read.refuse(field, message, ""),
    };
    if pattern.to_string() != text {
        let message = format!("{} is read as `{pattern}`; the API server would refuse it", shown(text));
        let finding = read.note(field, Code::ObjectInvalid, message);
        finding.severity = Severity::Warning;
        finding.help = format!("write `{pattern}`");
    }
    Ok(pattern)
}

fn path(read: &mut Reader<'_>, field: Field<'_>, index: u16) -> Read<IngressPath> {
    read.mapping(field, &["path", "pathType", "backend"])?;
    let words = [
        ("Exact", PathType::Exact),
        ("Prefix", PathType::Prefix),
        ("ImplementationSpecific", PathType::ImplementationSpecific),
    ];
    let type_field = field.get("pathType");
    let Some(path_type) = read.word(type_field, &words)? else {
        return read.refuse(
            type_field,
            "`pathType` is required",
            "write `pathType: Prefix`, unless you mean something else",
        );
    };
    let path_field = field.get("path");
    let text = read.text(path_field)?.unwrap_or_default();
    check_path(read, path_field, text, path_type)?;
    let backend = backend(read, field.get("backend"))?;
    Ok(IngressPath { index, path: text.into(), path_type, backend })
}

fn check_path(read: &mut Reader<'_>, field: Field<'_>, path: &str, path_type: PathType) -> Read<()> {
    let needs_form = match path_type {
        PathType::Exact | PathType::Prefix => true,
        PathType::ImplementationSpecific => false,
    };
    if !path.starts_with('/') && (needs_form || !path.is_empty()) {
        return read.refuse(field, format!("{} does not start with `/`", shown(path)), "");
    }
    if !needs_form {
        return Ok(());
    }
    if let Some(sequence) = INVALID_SEQUENCES.iter().find(|sequence| path.contains(*sequence)) {
        return read.refuse(field, format!("{} contains `{sequence}`", shown(path)), "");
    }
    if let Some(suffix) = INVALID_SUFFIXES.iter().find(|suffix| path.ends_with(*suffix)) {
        return read.refuse(field, format!("{} ends in `{suffix}`", shown(path)), "");
    }
    Ok(())
}

fn backend(read: &mut Reader<'_>, field: Field<'_>) -> Read<IngressBackend> {
    read.mapping(field, &["service", "resource"])?;
    let (service, resource) = (field.get("service"), field.get("resource"));
    match (service.is_absent(), resource.is_absent()) {
        (true, true) => read.refuse(
            field,
            format!("{field} needs a `service`"),
            "write `service: {name: NAME, port: {number: 80}}`",
        ),
        (false, false) => read.refuse(field, format!("{field} has both `service` and `resource`"), "keep one of them"),
        (false, true) => service_backend(read, service),
        (true, false) => {
            read.mapping(resource, &["apiGroup", "kind", "name"])?;
            let (kind, name) = (read.required(resource.get("kind"))?, read.required(resource.get("name"))?);
            Ok(IngressBackend::Resource { what: format!("{kind}/{name}").into() })
        }
    }
}

fn service_backend(read: &mut Reader<'_>, field: Field<'_>) -> Read<IngressBackend> {
    read.mapping(field, &["name", "port"])?;
    let name = read.name(field.get("name"), syntax::label)?.into();
    let port = field.get("port");
    read.mapping(port, &["name", "number"])?;
    let (name_field, number_field) = (port.get("name"), port.get("number"));
    let port = match (read.text(name_field)?, read.port(number_field)?) {
        (Some(_), Some(_)) => return read.refuse(port, "`port` has both `name` and `number`", "keep one of them"),
        (None, None) => return read.refuse(port, "`port` needs a `name` or a `number`", ""),
        (None, Some(number)) => PortRef::Number(number),
        (Some(text), None) => {
            read.check(name_field, text, syntax::port_name)?;
            PortRef::Name(text.into())
        }
    };
    Ok(IngressBackend::Service { name, port })
}

/// An entry whose hosts are all wrong is left out as a whole: without hosts it would mean more than was written.
fn ingress_tls(read: &mut Reader<'_>, field: Field<'_>, index: u16) -> Read<IngressTls> {
    read.mapping(field, &["hosts", "secretName"])?;
    let hosts_field = field.get("hosts");
    let mut hosts = Vec::new();
    let mut has_hosts = false;
    for field in read.list(&hosts_field)? {
        has_hosts = true;
        hosts.extend(read.required(field).and_then(|text| host(read, field, text)));
    }
    if has_hosts && hosts.is_empty() {
        return Err(LeftOut);
    }
    let secret_field = field.get("secretName");
    let secret = read.text(secret_field)?;
    if let Some(name) = secret {
        read.check(secret_field, name, syntax::subdomain)?;
    }
    Ok(IngressTls { index, hosts: exact(hosts), secret: secret.map(Into::into) })
}
