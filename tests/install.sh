#!/usr/bin/env bash
# A program outside the tree builds against the installed header and pkg-config file, with the shared and with the
# static library, and runs. Usage: install.sh BUILD CC FLAGS [EMULATOR...]
set -euo pipefail
build=$1 cc=$2 flags=$3
shift 3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cmake --install "$build" --prefix "$dir/usr" >/dev/null
# Moved after the installation: the pkg-config file must find its prefix by itself.
mv "$dir/usr" "$dir/moved"
pc=$(find "$dir/moved" -name dilmodeli.pc)
export PKG_CONFIG_PATH=${pc%/*}
lib=${PKG_CONFIG_PATH%/pkgconfig}

cat >"$dir/user.c" <<'END'
#include <dilmodeli.h>
#include <stdio.h>

int main(void) {
    dm_model *model = NULL;
    if (dm_model_open("/nowhere/model.gguf", &model) == DM_OK || model != NULL) {
        return 1;
    }
    fprintf(stderr, "%s: %s\n", dm_version(), dm_error_message());
    return dm_error_message()[0] == '\0';
}
END
$cc $flags -std=c17 -Wall -Wextra -Werror "$dir/user.c" -o "$dir/shared" $(pkg-config --cflags --libs dilmodeli)
LD_LIBRARY_PATH=$lib "$@" "$dir/shared"
rm "$lib"/libdilmodeli.so*
$cc $flags -std=c17 "$dir/user.c" -o "$dir/static" $(pkg-config --static --cflags --libs dilmodeli)
"$@" "$dir/static"
"$@" "$dir/moved/bin/dilmodeli" --version
