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
