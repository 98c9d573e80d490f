# Warnings and sanitizers, carried by one interface target that nothing outside sees.
option(DM_TESTS "Build the tests" ON)
option(DM_WERROR "Warnings are errors" ON)
option(DM_LIBURING "Read disks through io_uring, where liburing is found" ON)
option(DM_SERVER "Build the HTTP server, `dilmodeli serve`" ON)
option(DM_LIBEDIT "Edit lines of a chat and remember them, where libedit is found" ON)
set(DM_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined or thread")
option(DM_FUZZ "Build the fuzz targets, and everything for them; clang only" OFF)
if(DM_FUZZ)
    set(DM_TESTS OFF)
    set(DM_SANITIZE fuzzer-no-link,address,undefined)
endif()

add_library(dm-options INTERFACE)
target_compile_options(dm-options INTERFACE
    -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
    -Wundef -Wwrite-strings -Wno-psabi -ffp-contract=off
    $<$<BOOL:${DM_WERROR}>:-Werror>)
if(DM_SANITIZE)
    target_compile_options(dm-options INTERFACE -fsanitize=${DM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${DM_SANITIZE})
endif()
