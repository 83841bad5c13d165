//! Audio as it arrives: an allowed media type, strict base64, and bytes that are what they claim.

use axum::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use crate::problem::Problem;

/// Largest audio in bytes: what 2 MB of base64 can hold.
pub const MAX_AUDIO: usize = 1_500_000;

const ALLOWED: [&str; 7] =
    ["audio/webm", "audio/ogg", "audio/mp4", "audio/mpeg", "audio/wav", "audio/aac", "audio/flac"];

/// What [`media_type`] accepts, as a regular expression of ECMA-262; the case of letters does not
/// matter to it.
pub const PATTERN: &str = r"^audio/(webm|ogg|mp4|mpeg|wav|aac|flac)(;[^\u0000]*)?$";

/// The media type without parameters, if it is accepted.
pub fn media_type(text: &str) -> Result<&'static str, Problem> {
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ALLOWED.into_iter().find(|allowed| *allowed == essence).ok_or_else(|| {
        unsupported("mimeType must be audio/webm, ogg, mp4, mpeg, wav, aac or flac.")
    })
}

/// What the model calls a media type that [`media_type`] accepts. The Gemini API documents
/// `audio/mp3` ("Audio understanding", supported audio formats); its SDK's `AudioContentMimeType` has
/// `audio/m4a`; `audio/webm` is documented for Vertex AI only, under this name.
pub fn gemini_type(media_type: &str) -> &str {
    match media_type {
        "audio/mpeg" => "audio/mp3",
        "audio/mp4" => "audio/m4a",
        same => same,
    }
}

/// The bytes of base64 text (RFC 4648, section 4, with padding), which must be of the media type.
pub fn decode(text: &str, media_type: &str) -> Result<Bytes, Problem> {
    // Four characters carry three bytes: known before anything is decoded.
    if text.len() > MAX_AUDIO.div_ceil(3) * 4 {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "audio-too-large",
            "The audio is larger than 1.5 MB.",
        ));
    }
    let bytes = STANDARD.decode(text).map_err(|_| {
        Problem::bad_request("invalid-base64", "The audio is not base64 with padding.")
    })?;
    if bytes.is_empty() {
        return Err(Problem::bad_request("empty-audio", "The audio is empty."));
    }
    if !is(&bytes, media_type) {
        return Err(unsupported("The audio is not of the type that mimeType names."));
    }
    Ok(bytes.into())
}

/// Whether the first bytes are those of the format.
fn is(bytes: &[u8], media_type: &str) -> bool {
    let sync =
        |mask: u8, value: u8| bytes.len() > 1 && bytes[0] == 0xff && bytes[1] & mask == value;
    match media_type {
        // EBML (RFC 8794).
        "audio/webm" => bytes.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]),
        "audio/ogg" => bytes.starts_with(b"OggS"),
        // ISO base media: the first box is ftyp.
        "audio/mp4" => bytes.get(4..8) == Some(b"ftyp"),
        // An ID3 tag, or a frame of layer I to III: layer 0 is ADTS.
        "audio/mpeg" => bytes.starts_with(b"ID3") || (sync(0xe0, 0xe0) && bytes[1] & 0x06 != 0),
        "audio/wav" => bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE"),
        "audio/aac" => sync(0xf6, 0xf0),
        "audio/flac" => bytes.starts_with(b"fLaC"),
        _ => false,
    }
}

fn unsupported(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-audio", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [(&str, &[u8]); 7] = [
        ("audio/webm", b"\x1a\x45\xdf\xa3...."),
        ("audio/ogg", b"OggS...."),
        ("audio/mp4", b"\0\0\0\x20ftypM4A "),
        ("audio/mpeg", b"\xff\xfb\x90\x64"),
        ("audio/wav", b"RIFF\0\0\0\0WAVEfmt "),
        ("audio/aac", b"\xff\xf1\x50\x80"),
        ("audio/flac", b"fLaC\0\0\0\x22"),
    ];

    #[test]
    fn bytes_and_type_must_agree() {
        for (claimed, _) in SAMPLES {
            for (real, bytes) in SAMPLES {
                let outcome = decode(&STANDARD.encode(bytes), claimed);
                assert_eq!(outcome.is_ok(), claimed == real, "{real} as {claimed}");
            }
        }
        assert!(decode(&STANDARD.encode("ID3..."), "audio/mpeg").is_ok());
        for short in [&b"\xff"[..], b"RIFF", b"Og"] {
            for (claimed, _) in SAMPLES {
                assert_eq!(decode(&STANDARD.encode(short), claimed).unwrap_err().status(), 415);
            }
        }
    }

    #[test]
    fn only_the_listed_types() {
        assert_eq!(media_type("Audio/WebM;codecs=opus").unwrap(), "audio/webm");
        for bad in ["", "audio/*", "audio/x-wav", "video/webm", "audio/webm2", "audio"] {
            assert_eq!(media_type(bad).unwrap_err().status(), 415, "{bad}");
        }
    }

    #[test]
    fn base64_is_strict_and_bounded() {
        for bad in ["T2dnUw", "T2dnUw=", "T2dnUw==\n", "T2dn Uw==", "T2dnUx==", "====", "T2dn_w=="]
        {
            assert_eq!(decode(bad, "audio/ogg").unwrap_err().status(), 400, "{bad}");
        }
        assert_eq!(decode("", "audio/ogg").unwrap_err().status(), 400);
        assert!(decode("T2dnUw==", "audio/ogg").is_ok());
        let large = "A".repeat(MAX_AUDIO.div_ceil(3) * 4 + 4);
        assert_eq!(decode(&large, "audio/ogg").unwrap_err().status(), 413);
    }
}
