# What `cmake --install` puts where. The pkg-config file finds its prefix from its own place, so the tree can be moved.
install(TARGETS dilmodeli-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS dilmodeli-static dilmodeli-shared
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/dilmodeli.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(DM_PKGCONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH DM_PREFIX_FROM_PC /${DM_PKGCONFIG_DIR} /)
string(REGEX REPLACE "/$" "" DM_PREFIX_FROM_PC "${DM_PREFIX_FROM_PC}")
configure_file(cmake/dilmodeli.pc.in dilmodeli.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dilmodeli.pc DESTINATION ${DM_PKGCONFIG_DIR})

# A manual page for the program and for each of its commands, as they say of themselves, and completion for shells.
set(DM_MANUAL ${PROJECT_BINARY_DIR}/man)
install(CODE "execute_process(
    COMMAND \"${PROJECT_SOURCE_DIR}/scripts/manual\" \"${DM_MANUAL}\" ${CMAKE_CROSSCOMPILING_EMULATOR} \"$<TARGET_FILE:dilmodeli-cli>\"
    COMMAND_ERROR_IS_FATAL ANY)")
install(DIRECTORY ${DM_MANUAL}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")
install(FILES completions/dilmodeli.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME dilmodeli)
install(FILES completions/_dilmodeli DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES completions/dilmodeli.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
