# Writes OUT, a C file that defines a string for each of FILES: dm_web_NAME_TYPE for NAME.TYPE.
# cmake -D OUT=web.c -D FILES=a.css,b.js -P embed.cmake
string(REPLACE "," ";" FILES "${FILES}")
set(source "/* Made by cmake/embed.cmake. */\n#include \"visualization/web.h\"\n")
foreach(file ${FILES})
    get_filename_component(name ${file} NAME)
    string(REPLACE "." "_" name ${name})
    file(READ ${file} bytes HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
    string(APPEND source "\nconst char dm_web_${name}[] = {${bytes} 0};\n")
endforeach()
file(WRITE ${OUT} "${source}")
