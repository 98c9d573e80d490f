# Toolchain: from Debian on x86-64 to Linux on aarch64, with the libraries that scripts/deps-aarch64 unpacks, and the
# tests run by qemu-user. Use with -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_C_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

get_filename_component(DM_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build-aarch64-sysroot" ABSOLUTE)
set(DM_CROSS_LIBC /usr/aarch64-linux-gnu) # of Debian's libc6-dev-arm64-cross, libgomp1-arm64-cross
set(CMAKE_FIND_ROOT_PATH ${DM_SYSROOT} ${DM_CROSS_LIBC})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# Headers of Debian that differ from machine to machine, which pkg-config does not name.
set(CMAKE_C_STANDARD_INCLUDE_DIRECTORIES ${DM_SYSROOT}/usr/include/${CMAKE_C_LIBRARY_ARCHITECTURE})
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${DM_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${DM_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)

# For test_install: how a user of the installed library links against what lies in the sysroot.
set(DM_USER_FLAGS "-L${DM_SYSROOT}/usr/lib/aarch64-linux-gnu -Wl,-rpath-link,${DM_SYSROOT}/usr/lib/aarch64-linux-gnu")

# The emulated loader finds all libraries below the sysroot. Threads must sleep, not spin, at barriers: an emulated one that
# spins takes the core from the one it waits for.
find_program(DM_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(DM_QEMU)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${DM_QEMU};-E;OMP_WAIT_POLICY=passive;-L;${DM_SYSROOT})
endif()
