# Writes OUT, a C file that defines a string for each of FILES, which lie in FOLDER: dm_web_A_B_TYPE for A/B.TYPE.
# cmake -D OUT=web.c -D FOLDER=web -D FILES=x/a.css,x/b.js -P embed.cmake
string(REPLACE "," ";" FILES "${FILES}")
set(source "/* Made by cmake/embed.cmake. */\n#include \"base/web.h\"\n")
foreach(file ${FILES})
    string(MAKE_C_IDENTIFIER ${file} name)
    file(READ ${FOLDER}/${file} bytes HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
    string(APPEND source "\nconst char dm_web_${name}[] = {${bytes} 0};\n")
endforeach()
file(WRITE ${OUT} "${source}")
