/* core/sha256: the vectors of FIPS 180-4 and a file read in pieces. */
#include "core/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

static void hashes_equal_the_published_vectors(void **state)
{
    (void)state;
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, "", 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_bytes(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_bytes(hex, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    Sha256 *hash = sha256_new();
    char piece[997];
    memset(piece, 'a', sizeof piece);
    for (size_t done = 0; done < 1000000;) {
        size_t n = 1000000 - done < sizeof piece ? 1000000 - done : sizeof piece;
        sha256_update(hash, piece, n);
        done += n;
    }
    sha256_finish(hash, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void a_file_hashes_like_its_bytes(void **state)
{
    (void)state;
    size_t n = (1 << 19) + 13;
    char *bytes = malloc(n);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (char)(i * 31 >> 3);
    }
    char direct[SHA256_HEX_SIZE], read_back[SHA256_HEX_SIZE];
    Error error = {0};
    sha256_bytes(direct, bytes, n);
    assert_int_equal(file_write("test_core_sha256.tmp", bytes, n, &error), STATUS_OK);
    assert_int_equal(sha256_file(read_back, "test_core_sha256.tmp", &error), STATUS_OK);
    assert_string_equal(direct, read_back);
    assert_int_equal(unlink("test_core_sha256.tmp"), 0);
    assert_int_equal(sha256_file(read_back, "test_core_sha256.tmp", &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "test_core_sha256.tmp: cannot be opened: No such file or directory");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_equal_the_published_vectors),
        cmocka_unit_test(a_file_hashes_like_its_bytes),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
