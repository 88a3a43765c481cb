import hashlib
from pathlib import Path

from cryptography import x509

from omamori_lab import configs, web_content
from omamori_lab.web_content import eicar, write_web_certificate

EICAR_SHA256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"


def test_the_test_file_is_the_one_the_feed_lists() -> None:
    assert hashlib.sha256(eicar()).hexdigest() == EICAR_SHA256
    listed = Path(__file__).parents[3] / "signatures/demo/lists/malware.txt"
    assert EICAR_SHA256 in listed.read_text()


def test_the_source_tree_does_not_hold_the_test_file() -> None:
    assert eicar() not in Path(str(web_content.__file__)).read_bytes()


def test_the_web_certificate_carries_every_name(tmp_path: Path) -> None:
    ca = write_web_certificate(tmp_path / "tls", configs.web_names())
    authority = x509.load_pem_x509_certificate(ca.read_bytes())
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls/tls.crt").read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"web.example", "notmalware.test", "www.phishing.test"} <= set(names.get_values_for_type(x509.DNSName))
    assert (tmp_path / "tls/tls.key").stat().st_mode & 0o777 == 0o600
