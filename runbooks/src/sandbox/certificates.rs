//! The sandbox's own certificate authority and the server certificates under it.

use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::error::Error;
use super::write_private;

/// File name of the authority's certificate: what clients must trust.
pub(super) const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";

/// Makes the authority unless the directory has one.
pub(super) fn ensure_authority(directory: &Path) -> Result<(), Error> {
    let (certificate, key) = (directory.join(AUTHORITY), directory.join(AUTHORITY_KEY));
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate()?;
    let authority = authority_parameters()?.self_signed(&pair)?;
    write_private(&key, &pair.serialize_pem())?;
    std::fs::write(&certificate, authority.pem()).map_err(|e| Error::io("write", &certificate, e))
}

/// Issues `NAME.pem` and `NAME.key` for `host_names` (wildcards allowed) and `address`.
pub(super) fn issue(
    directory: &Path,
    name: &str,
    host_names: &[String],
    address: Ipv4Addr,
) -> Result<(), Error> {
    let key_path = directory.join(AUTHORITY_KEY);
    let authority_key =
        std::fs::read_to_string(&key_path).map_err(|e| Error::io("read", &key_path, e))?;
    let issuer = Issuer::new(authority_parameters()?, KeyPair::from_pem(&authority_key)?);

    let mut names = vec!["localhost".to_owned()];
    names.extend_from_slice(host_names);
    let mut parameters = CertificateParams::new(names)?;
    for address in [Ipv4Addr::LOCALHOST, address] {
        parameters.subject_alt_names.push(SanType::IpAddress(address.into()));
    }
    parameters.distinguished_name.push(DnType::CommonName, format!("bme sandbox {name}"));
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    set_validity(&mut parameters);

    let pair = KeyPair::generate()?;
    let certificate = parameters.signed_by(&pair, &issuer)?;
    write_private(&directory.join(format!("{name}.key")), &pair.serialize_pem())?;
    let path = directory.join(format!("{name}.pem"));
    std::fs::write(&path, certificate.pem()).map_err(|e| Error::io("write", &path, e))
}

/// Everything about the authority but its key, so that it can be rebuilt from the key alone.
fn authority_parameters() -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, "bme sandbox authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut parameters);
    Ok(parameters)
}

/// Long enough that no sandbox sees the end; the key never leaves the machine.
fn set_validity(parameters: &mut CertificateParams) {
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2044, 1, 1);
}
