/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include <stdint.h>
typedef int BaseType_t;
typedef unsigned UBaseType_t;
typedef uint32_t TickType_t;
#define pdTRUE 1
