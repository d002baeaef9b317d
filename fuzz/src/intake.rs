//! The first hop's parsers.

use firsthop_core::{
    Frame, KeyId, Keyring, Properties, PropertiesWriter, RootKey, TenantId, Timestamp, WorkerId, limits::MAX_EVENT,
};
use firsthop_intake::{
    Facts, Origins, Rooted, Tenant,
    document::{Document, Kind, RegionKeys, Signed},
    json::{Json, read_entries, to_string},
    native,
    rules::Rules,
    segment::{self, Call},
};

use crate::{common, mended};

const WRITE_KEY: &str = "fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls";
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn account() -> Rooted {
    let mut roots = Keyring::new();
    roots.insert(KeyId::FIRST, RootKey::new([7; 32]), NOW, None).expect("it is empty");
    Rooted {
        tenant: Tenant {
            id: TenantId::new(0xa11ce),
            name: "Fuzz".into(),
            region: "EU".parse().expect("two capitals"),
            worker: WorkerId::new(0),
            write_keys: vec![WRITE_KEY.into()],
            origins: Origins::any(),
        },
        roots,
        region_secrets: [("EU".parse().expect("two capitals"), crate::region_key())].into_iter().collect(),
        sealed_only: false,
    }
}

/// Native frames: what is accepted can be decoded, what is refused has an answer.
pub fn native(bytes: &[u8]) {
    let account = account();
    let facts = Facts { origin: Some("https://shop.example"), ..Facts::at(NOW) };
    for bytes in [Some(bytes.to_vec()), mended(bytes)].into_iter().flatten() {
        match native::receive(&bytes, &facts, |id| (id == account.tenant.id).then_some(&account)) {
            Ok(accepted) => {
                let frame = accepted.readable().expect("what is sealed is sealed to the one key that the account has");
                drop(common::content(&frame).expect("every event can be read"));
            }
            Err(refused) => assert!(!refused.problem.to_json().is_empty()),
        }
    }
}

/// Segment's calls: the first byte says which.
pub fn segment(bytes: &[u8]) {
    let Some((&which, body)) = bytes.split_first() else { return };
    let names = ["track", "identify", "page", "screen", "group", "alias", "batch"];
    let call = Call::from_path(names[usize::from(which) % names.len()]).expect("a name of ours");
    let account = account();
    let mut random = |buf: &mut [u8]| buf.fill(which);
    let authorization = "Basic ZmhfMDAwMDAwMDAwMDBhMTFjZV9LcTdacDBjM1ZuOFJiNUxzOg==";
    let facts = Facts { authorization: Some(authorization), content_type: Some("application/json"), ..Facts::at(NOW) };
    let find = |id| (id == account.tenant.id).then_some(&account);
    let granted = |_: &&_, said: &str| Rules::none().consent.granted(said);
    match segment::receive(call, body, &facts, &mut random, find, &granted) {
        Ok(accepted) => {
            assert!(
                !accepted.frames.is_empty()
                    || !accepted.rejected.is_empty()
                    || names[usize::from(which) % 7] == "batch"
            );
            for bytes in &accepted.frames {
                let frame = Frame::parse(bytes).expect("our own");
                common::content(&frame).expect("our own");
                assert_eq!(frame.write_key().expect("it stands there").as_str(), WRITE_KEY);
            }
        }
        Err(refused) => assert!(!refused.problem.to_json().is_empty()),
    }
}

/// JSON as properties, and back: a second reading of what was written says the same.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = |text: &str, then: &mut dyn FnMut(Properties<'_>)| {
        let mut writer = PropertiesWriter::new(vec![0; MAX_EVENT], vec![0; MAX_EVENT]);
        if read_entries(text, &mut writer).is_ok() {
            then(writer.finish().expect("everything is closed"));
        }
    };
    read(text, &mut |properties| {
        let written = to_string(Json(properties));
        let mut reads = 0;
        read(&written, &mut |again| {
            assert_eq!(to_string(Json(again)), written);
            reads += 1;
        });
        assert_eq!(reads, 1, "{written}");
    });
}

/// A document as it travels, or its text alone: what is taken is of the kind and tenant that was asked for, not older than what there
/// was, and says the same when it is written and read again.
pub fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let bare = Signed { kind: Kind::RegionKeys.as_str().into(), text: text.into(), signature: [0; 64] };
    for signed in [serde_json::from_str::<Signed>(text).ok(), Some(bare)].into_iter().flatten() {
        if let Ok(signed_bytes) = signed.signed_bytes() {
            assert!(signed_bytes.ends_with(signed.text.as_bytes()));
        }
        let Ok(read) = signed.read::<RegionKeys>(Kind::RegionKeys, TenantId::new(0xa11ce), 7) else { continue };
        assert!(read.version >= 7 && read.kind == Kind::RegionKeys && read.tenant == TenantId::new(0xa11ce));
        let Some(text) = Document::to_text(&read) else { continue };
        let again = Signed { text, ..signed };
        assert_eq!(again.read(Kind::RegionKeys, TenantId::new(0xa11ce), read.version), Ok(read));
    }
}
