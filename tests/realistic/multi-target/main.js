const isNumber = require('is-number');
const value = process.argv[2];
if (!isNumber(value)) throw new Error(`no number: ${value}`);
console.log(`${value}: ${value % 2 ? 'odd' : 'even'}`);
