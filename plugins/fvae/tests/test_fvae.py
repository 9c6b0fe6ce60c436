from flowzoo.testing import conformance_suite
test_conformance = conformance_suite("fvae")
