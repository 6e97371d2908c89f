# Puts every image that ESP-IDF builds into a folder of releases: `lockstep.py` for CMake.
#
# Include it behind `project(…)` in the project's CMakeLists.txt, with LOCKSTEP_OUTPUT set:
#
#     set(LOCKSTEP_OUTPUT "C:/OTA_Firmware")
#     include(lockstep.cmake)
#
# `idf.py lockstep-release` builds, and puts the image there; with LOCKSTEP_ON_BUILD every build
# does. The options are those of `lockstep.py`, in capitals: LOCKSTEP_ROLE, LOCKSTEP_VERSION,
# LOCKSTEP_PUBLISH … (docs/idf.md).

if(NOT TARGET gen_project_binary)
    message(FATAL_ERROR "no target builds an image: include lockstep.cmake behind project()")
endif()

set(_lockstep_line)
foreach(_name OUTPUT ROLE ROLES HEADER VERSION PROTOCOL MIN_COMPATIBLE HARDWARE KEEP URL DESCRIPTION
        ORDER REBOOT_DELAY HEALTH_TIMEOUT PUBLISH PUBLISH_REQUIRED KEY UNSIGNED LEAD TOKEN_FILE
        KEY_PASSWORD_FILE COMMAND)
    if(DEFINED LOCKSTEP_${_name})
        string(TOLOWER "${_name}" _option)
        string(REPLACE "_" "-" _option "${_option}")
        list(JOIN LOCKSTEP_${_name} ", " _value)
        # In one word: a value may be empty.
        list(APPEND _lockstep_line "--${_option}=${_value}")
    endif()
endforeach()

# What the component `main` is compiled with; LOCKSTEP_COMPONENT names another one.
if(NOT DEFINED LOCKSTEP_COMPONENT)
    set(LOCKSTEP_COMPONENT main)
endif()
idf_component_get_property(_lockstep_library ${LOCKSTEP_COMPONENT} COMPONENT_LIB)
idf_build_get_property(_lockstep_build_dir BUILD_DIR)
idf_build_get_property(_lockstep_python PYTHON)
if(NOT DEFINED LOCKSTEP_IMAGE)
    set(LOCKSTEP_IMAGE "${_lockstep_build_dir}/${CMAKE_PROJECT_NAME}.bin")
endif()

set(_lockstep_all)
if(LOCKSTEP_ON_BUILD)
    set(_lockstep_all ALL)
endif()
add_custom_target(lockstep-release ${_lockstep_all}
    COMMAND ${_lockstep_python} "${CMAKE_CURRENT_LIST_DIR}/lockstep.py" "${LOCKSTEP_IMAGE}"
        --define "$<TARGET_PROPERTY:${_lockstep_library},COMPILE_DEFINITIONS>"
        --include "$<TARGET_PROPERTY:${_lockstep_library},INCLUDE_DIRECTORIES>"
        ${_lockstep_line}
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    COMMENT "Putting ${CMAKE_PROJECT_NAME} into the folder of releases"
    USES_TERMINAL
    VERBATIM)
# Signed images are made behind it, and it waits for them.
add_dependencies(lockstep-release gen_project_binary)
